"""Measure what methods cost beside the frozen base: training, prefill, decoding, memory, disk.

    python scripts/benchmark.py                                   # a small model on the CPU
    python scripts/benchmark.py suite=llama3_8b scenarios=[train_compiled,train_eager]
    python scripts/benchmark.py suite=cpu methods=[lora,idlora] batch=4 length=128 repeats=30
    python scripts/benchmark.py suite=trainer                     # the trainer beside a plain loop
    python scripts/benchmark.py report=results/h200/benchmark.csv

Exit code 1 if the machine was busy, which allow_busy=true accepts, or a variant failed.
"""

import shlex
import sys
from pathlib import Path

from reproduction.commands.benchmark import measure_plan, plan_from_config
from reproduction.commands.script import hydra_command
from reproduction.commands.trainer_benchmark import measure_trainer
from reproduction.report.costs import write_costs


@hydra_command("benchmark")
def main(config):
    typed = shlex.join(["python", *sys.argv])
    if config.report is not None:
        print(f"written: {write_costs(Path(config.report))}")
    elif "trainer" in config.suite:
        measure_trainer(config, command=typed)
    else:
        measure_plan(plan_from_config(config), config.results_dir, command=typed, threads=config.threads)


if __name__ == "__main__":
    main()
