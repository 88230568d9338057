"""Cost of the methods relative to the frozen base: time of a training step, prefill and decoding; memory; disk size.

spec.py        the plan: scenarios (phase, layers, batch, length, …) crossed with variants (a method, its dtype)
models.py      a base with random weights; applies a variant to it and removes it again
workload.py    one step of a phase as a function without arguments
measure.py     seconds, quartiles and peak memory of such a step
idle_check.py  checks that the machine is free to measure on
record.py      rows → benchmark.csv and provenance.json
run.py         the whole benchmark in order
training.py    the trainer compared with a plain loop (suite=trainer)

The package knows no method by name.
"""
