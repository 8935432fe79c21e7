"""Greedy selection: one label at a time, the largest gain first."""
