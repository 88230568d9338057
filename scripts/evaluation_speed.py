"""Measure what evaluation takes: whole benchmarks, and the same prompts through transformers' generate and lm-eval.

    python scripts/evaluation_speed.py model=llama3_8b model.init=random eval=[gsm8k,mmlu] eval.gsm8k.limit=256

Writes results/<device>/evaluation.csv, row by row, and the table evaluation.md.
"""

import hydra
from omegaconf import DictConfig

from reproduction.cells.from_config import eval_job_from_config
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.commands.speed_records import record_speed


@hydra.main(version_base="1.3", config_path="../configs", config_name="evaluation_speed")
@command
def main(config: DictConfig) -> None:
    paths = record_speed(
        eval_job_from_config(config),
        model=config.model,
        label=config.label,
        compared=config.compared,
        into=config.into,
        results_dir=config.results_dir,
    )
    print("written: " + ", ".join(map(str, paths)))


if __name__ == "__main__":
    register_resolvers()
    main()
