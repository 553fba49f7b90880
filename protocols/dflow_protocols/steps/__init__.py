"""One step of a run: its records, duties, seals and roster. Pure rules, no run around them."""
