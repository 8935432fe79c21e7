"""Experiments that follow a design to the policy trained on its labels: `python -m bench.experiments.NAME`."""
