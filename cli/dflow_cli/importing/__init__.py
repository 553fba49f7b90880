"""Other programs' pipelines as specs: read, translated, and told what has no twin."""
