"""What `dflow doctor` looks at, and what it makes of that."""
