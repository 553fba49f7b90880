"""Engines are tested under the settings that their processes have; libraries read them when they are loaded."""

import os

from dflowd.engines.child import ENVIRONMENT

os.environ.update(ENVIRONMENT)
