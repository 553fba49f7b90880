"""What a loss needs beside the registry: tokens that it picks from a group, and the user's own function."""
