"""Tests, in folders like the package's; what several of them use is in `support`, random problems in `fuzz`."""
