"""Benchmarks scored by lm-eval: tasks of ours in `tasks/`, prompts and answers from this package.

lm-eval asks for the answers and reads them (filters, metrics); it does not build prompts, sample examples or decode.
"""

import contextlib
import io
import logging
import random
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from itertools import groupby
from typing import Any

import yaml

from idlora.evals.items import Prompt

Scored = tuple[Any, dict[str, dict]]
"""A prompt's answer, and lm-eval's sample for each of the task's filters."""


def score(task: str, prompts: Sequence[Prompt], fields: Sequence[dict], *, ask: Callable) -> list[Scored]:
    """The answers to the prompts and how lm-eval's task `tasks/<task>.yaml` reads and scores them, in order.

    Args:
        fields: for each prompt what the task's YAML names beside "prompt".
        ask: `idlora.evals.generation.generate` or `idlora.evals.likelihood.loglikelihoods`, as the task's output type
            wants it, with all but the prompts and the stop strings or choices given. Called once.
    """
    import lm_eval  # 0.7 s with its evaluator, so only where it is used
    from datasets import Dataset
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    documents = [{**own, "prompt": prompt.text} for prompt, own in zip(prompts, fields, strict=True)]
    config = yaml.safe_load((resources.files("idlora.evals") / "tasks" / f"{task}.yaml").read_text())
    config |= {"custom_dataset": lambda **_: {"test": Dataset.from_list(documents)}, "num_fewshot": 0}
    answers: dict[int, Any] = {}
    stderr = sys.stderr

    class Asked(LM):
        """lm-eval's view of the model: it sends all questions at once and gets all answers."""

        def generate_until(self, requests, disable_tqdm=False):
            numbers = [request.doc_id for request in requests]
            with contextlib.redirect_stderr(stderr):
                texts = ask([prompts[number] for number in numbers], stop=requests[0].args[1]["until"])
            answers.update(zip(numbers, (text for (text,) in texts), strict=True))
            return [answers[number] for number in numbers]

        def loglikelihood(self, requests, disable_tqdm=False):
            by_document = {n: list(some) for n, some in groupby(requests, key=lambda request: request.doc_id)}
            choices = [[request.args[1] for request in some] for some in by_document.values()]
            with contextlib.redirect_stderr(stderr):
                found = ask([prompts[number] for number in by_document], choices=choices)
            answers.update(zip(by_document, found, strict=True))
            # The second of each pair, whether greedy decoding would say it, is read by no metric of ours.
            return [(logprob, False) for number in by_document for logprob in answers[number]]

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            raise NotImplementedError("no task asks for the likelihood of whole texts")

    with _undisturbed():
        # evaluate and not simple_evaluate, which would reseed every generator and ask git about the working folder
        results = lm_eval.evaluate(
            Asked(), TaskManager(include_defaults=False).load([config]), bootstrap_iters=0, log_samples=True
        )
    read: list[dict[str, dict]] = [{} for _ in prompts]
    for sample in results["samples"][config["task"]]:
        read[sample["doc_id"]][sample["filter"]] = sample
    return [(answers[number], read[number]) for number in range(len(prompts))]


@contextlib.contextmanager
def _undisturbed():
    """lm-eval logs each setting, draws a bar of its own, and draws names for tasks from everybody's random numbers."""
    logger = logging.getLogger("lm_eval")
    level, drawn = logger.level, random.getstate()
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        random.setstate(drawn)
