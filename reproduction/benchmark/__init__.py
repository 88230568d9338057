"""What methods cost beside the frozen base: time of a training step, of prefill and of decoding, memory, bytes on disk.

spec.py        what is measured: scenarios (phase, layers, batch, length, …) crossed with variants (a method, its dtype)
models.py      a base with random weights, a variant put on it and taken off again
workload.py    one step of a phase as a function without arguments
measure.py     seconds, quartiles and peak memory of such a step
idle_check.py  whether the machine was free to measure
record.py      rows → benchmark.csv and provenance.json
run.py         all of it in order
training.py    the trainer beside a plain loop (suite=trainer)

Knows no method by name.
"""
