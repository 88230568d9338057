"""Evaluation in two steps with a file between them: answering (model → answers.jsonl), scoring (answers → items.jsonl).

tasks/<name>.py   a benchmark: rows, prompts, stop strings, parsing of answers, scores
task              `Task`, the base class of benchmarks, and `Protocol`, the settings of one evaluation
prompts           rows → prompts, with worked examples
answering         runs the model, through `generation` (decoding), `likelihood` or `loss`; needs torch
scoring           parses and scores answers with the benchmark; needs neither torch nor a model
code, judges      extract the code from an answer; decide whether an answer refuses
sandbox           the only place that runs model-written code
"""

from reproduction.evals.sandbox import Permissions
from reproduction.evals.scoring import score
from reproduction.evals.task import Protocol

__all__ = ["Permissions", "Protocol", "score"]
