"""A pipeline as a person wrote it, and the files that it names: read, checked, handed in."""
