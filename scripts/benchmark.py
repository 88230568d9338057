"""Measure the cost of methods relative to the frozen base: training step, prefill, decoding, memory, bytes on disk.

python scripts/benchmark.py suite=llama3_8b scenarios=[train_compiled]
python scripts/benchmark.py suite=trainer
python scripts/benchmark.py report=results/h200/benchmark.csv
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
