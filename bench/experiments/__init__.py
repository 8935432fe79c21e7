"""Experiments: how good policies become that are trained on the pairs a design chose, against other choices."""
