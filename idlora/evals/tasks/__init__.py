"""The benchmarks: each file ends in `TASK = …`; see `idlora.evals.task`."""
