"""A run as a daemon tells of it: its outcome, its pace, its name, and following it to the end."""
