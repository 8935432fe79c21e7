"""Simulated annotators and rewards."""
