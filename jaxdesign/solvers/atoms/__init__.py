"""Solvers that mix whole allowed allocations."""
