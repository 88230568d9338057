"""Evaluation in two steps with a file between them: answering (model → answers.jsonl), scoring (answers → items.jsonl).

tasks/<name>.py   a benchmark, whole: rows, prompts, stop strings, reading, scores; its parent class is in `task`,
                  and so is a `Protocol`, how a benchmark is asked and scored
prompts           rows → prompts, with worked examples
answering         asks a model, through `generation` (decoding), `likelihood` or `loss`; needs torch
scoring           reads answers, through the benchmark; needs neither torch nor a model
code, judges      readers of answers: the code in one, whether it refuses
sandbox           runs model-written code, and nothing else does
"""

from reproduction.evals.sandbox import Permissions
from reproduction.evals.scoring import score
from reproduction.evals.task import Protocol

__all__ = ["Permissions", "Protocol", "score"]
