"""Numerical methods that know nothing of pools: projections, line search, gradients, interior points."""
