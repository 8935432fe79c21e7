"""Measurements that say what limits this library on an accelerator; `bench.gpu` is their entry command."""
