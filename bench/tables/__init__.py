"""The page of measured tables, bench/README.md, from bench/results: `python -m bench.tables` writes it."""
