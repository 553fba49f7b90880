"""The runs of a node: wiring, what each message and each finished call does, and the table of all runs."""
