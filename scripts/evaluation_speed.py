"""Measure evaluation speed: whole benchmarks, and the same prompts with transformers' generate and lm-eval.

python scripts/evaluation_speed.py model=llama3_8b model.init=random eval=[gsm8k,mmlu] eval.gsm8k.limit=256
"""

from reproduction.cells.from_config import eval_job_from_config
from reproduction.commands.script import hydra_command
from reproduction.commands.speed import record_speed


@hydra_command("evaluation_speed")
def main(config):
    print("written: " + ", ".join(map(str, record_speed(eval_job_from_config(config), config))))


if __name__ == "__main__":
    main()
