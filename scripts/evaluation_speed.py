r"""Measure the speed of evaluation: whole benchmarks, and transformers and lm-eval beside them.

    python scripts/evaluation_speed.py model=llama3_8b model.init=random \
        eval=[gsm8k,mmlu] eval.gsm8k.limit=256
    python scripts/evaluation_speed.py model=llama3_8b model.path_or_id=<folder> eval=mmlu

It writes evaluation.csv and evaluation.md. eval=humaneval needs allow_code_execution=true.
"""

from reproduction.cells.from_config import eval_job_from_config
from reproduction.commands.script import hydra_command


@hydra_command("evaluation_speed")
def main(config):
    from reproduction.commands.speed import record_speed  # imports torch, which --help does not need

    print("written: " + ", ".join(map(str, record_speed(eval_job_from_config(config), config))))


if __name__ == "__main__":
    main()
