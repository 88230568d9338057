"""Measure what methods cost beside the frozen base: training step, prefill, decoding, memory, bytes on disk.

    python scripts/benchmark.py
    python scripts/benchmark.py suite=llama3_8b scenarios=[train_compiled]
    python scripts/benchmark.py suite=trainer
    python scripts/benchmark.py report=results/h200/benchmark.csv

Writes results/<device>/benchmark.csv, row by row, and the table benchmark.md; of suite=trainer, trainer.csv and .md.
Exit code 1 where the machine was busy or a variant failed.
"""

import shlex
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.commands.benchmark import measure_plan, plan_from_config
from reproduction.commands.trainer_benchmark import measure_trainer
from reproduction.report.costs import write_costs


@hydra.main(version_base="1.3", config_path="../configs", config_name="benchmark")
@command
def main(config: DictConfig) -> None:
    if config.report is not None:
        print(f"written: {write_costs(Path(config.report))}")
        return
    typed = shlex.join(["python", *sys.argv])
    if "trainer" in config.suite:
        measure_trainer(config, command=typed)
        return
    plan = plan_from_config(config)
    measure_plan(plan, config.results_dir, command=typed, threads=config.threads)


if __name__ == "__main__":
    register_resolvers()
    main()
