"""The side-by-side figures: our engine and others on one machine, in one run, on the same weights."""
