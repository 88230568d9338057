"""Benchmarks: each module has `check(protocol)` and `run(rows, …)`; see `idlora.evals.registry`."""
