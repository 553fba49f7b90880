"""The ground of the heavy rooms: what a work is done with, how it fails, and the random numbers that it draws."""
