"""Solvers over all pairs at once, as (P, K, K) arrays: traceable, for use inside of jit too."""
