"""Column generation: the default solver, and its restricted problems."""
