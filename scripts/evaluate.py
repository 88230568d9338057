"""Evaluate a finished run, or any base model with or without an adapter; print scores, keep every item's record.

python scripts/evaluate.py run=results/tiny/runs/<name>
python scripts/evaluate.py run=results/tiny/runs/<name> eval=humaneval allow_code_execution=true
python scripts/evaluate.py run=results/tiny/runs/<name> rescore=true allow_code_execution=true
python scripts/evaluate.py model=llama3_8b eval=gsm8k adapter=<folder>
"""

import hydra
from omegaconf import DictConfig

from idlora.pipeline.compose import subject_from_config
from idlora.pipeline.evaluation import evaluate_all
from idlora.pipeline.preflight import require_evaluation
from idlora.pipeline.progress import display
from idlora.pipeline.resolvers import register_resolvers
from idlora.pipeline.shell import command
from idlora.report.scores import score_lines


@hydra.main(version_base="1.3", config_path="../configs", config_name="evaluate")
@command
def main(config: DictConfig) -> None:
    subject = subject_from_config(config)
    if not config.rescore:
        require_evaluation(subject)
    with display(1) as progress:
        progress.cell(subject.folder.name)
        folders = evaluate_all(subject, progress, rescore=config.rescore)
        progress.finished(subject.folder.name)
    for folder in folders:
        print("\n".join(score_lines(folder)))
        print(f"records: {folder}")


if __name__ == "__main__":
    register_resolvers()
    main()
