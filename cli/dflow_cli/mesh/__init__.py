"""How a command meets a mesh: keys, files of a local one, daemons of it, and the connection to any of them."""
