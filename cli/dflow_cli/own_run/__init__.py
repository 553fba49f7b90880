"""`dflow run`: a mesh for one run, and what stays of it in DIR."""
