"""What runs read from files: looked for on this host, brought from others, kept in a cache. First read supplies.py."""
