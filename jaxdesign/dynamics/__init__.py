"""Rounds of sampling and training over time: where they end, whether they are stable, and which stage one is in."""
