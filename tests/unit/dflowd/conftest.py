"""Engines are tested under the settings that their processes have; libraries read them when they are loaded."""

import os

from dflowd.child.process import ENVIRONMENT

os.environ.update(ENVIRONMENT)
