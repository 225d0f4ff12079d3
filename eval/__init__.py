"""Benchmarks, one readable protocol each; run them with `python -m eval.kvg_bench`."""
