"""Evaluate a finished run, or any base model with or without an adapter.

    python scripts/evaluate.py run=results/tiny/runs/<name>
    python scripts/evaluate.py model=llama3_8b eval=gsm8k adapter=<folder>

It prints the scores and keeps every item's record. eval=humaneval runs what the model writes, in a
sandbox, and needs allow_code_execution=true.
"""

# eval_job_from_config    the config as a typed, checked job                   reproduction/cells/from_config.py
# require_evaluation      raises with everything that this machine lacks       reproduction/preflight
# evaluate                the model's answers, one process a GPU; then their
#                         scores, which need no model                          reproduction/running/evaluate.py

from reproduction.cells.from_config import eval_job_from_config
from reproduction.commands.script import hydra_command
from reproduction.preflight import require_evaluation
from reproduction.report.scores import score_lines
from reproduction.running.evaluate import evaluate
from reproduction.running.progress import display


@hydra_command("evaluate")
def main(config):
    job = eval_job_from_config(config)
    if not config.rescore:
        require_evaluation(job)
    with display(1) as progress:
        progress.cell(job.folder.name)
        folders = evaluate(job, progress, rescore=config.rescore)
        progress.finished(job.folder.name)
    for folder in folders:
        print("\n".join(score_lines(folder)))
        print(f"records: {folder}")


if __name__ == "__main__":
    main()
