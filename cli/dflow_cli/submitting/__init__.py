"""From a spec file to a run, with the files that it names: first read submission.py."""
