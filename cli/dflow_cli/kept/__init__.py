"""What DIR keeps where no daemon runs: the results of runs that came home, and what ended daemons left."""
