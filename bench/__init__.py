"""Benchmarks: the pools, the honest competitors, and the entry command that times them against jaxdesign."""
