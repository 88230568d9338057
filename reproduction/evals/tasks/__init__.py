"""The benchmarks: each file ends in `TASK = …`; see `reproduction.evals.task`."""
