"""Exact designs: whole labels, by greedy selection or by rounding a real-valued design."""
