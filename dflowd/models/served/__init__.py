"""A model that another library samples from: the library in this process, and the weights that it is given."""
