"""This process on its host: signals, faults that nobody catches, lag, and what a service manager hears."""
