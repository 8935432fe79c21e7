"""Random adversarial problems, and a judge that shares nothing with the library. `python -m tests.fuzz --help`."""
