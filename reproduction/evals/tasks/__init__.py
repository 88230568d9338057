"""The benchmarks; each module defines `TASK`, see `reproduction.evals.task`."""
