"""Which faults strike a drawn world, and when: mix.py draws them, each kind of fault as its file here says."""
