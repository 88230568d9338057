"""Stored answers through lm-eval's filters and metrics: it reads and scores, and neither prompts nor decodes."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LETTERS = "ABCDE"
"""What the choices of a question are called, in order."""


def scored(
    config: Mapping[str, Any], fields: Sequence[Mapping[str, Any]], answers: Sequence[Sequence[Any]]
) -> list[dict[str, tuple[Any, dict[str, float]]]]:
    """For each document filter → (what it read, the metrics of that).

    Args:
        config: of an lm-eval task without data: output_type, doc_to_target, filter_list, metric_list and so on.
        fields: of each document, as the config names them.
        answers: of each document: the one text, or (log-probability, False) of each choice.
    """
    from datasets import Dataset  # with lm-eval a second and a half: only where something is scored
    from lm_eval.api.task import ConfigurableTask

    documents = [{"prompt": "", **own} for own in fields]
    own = {"custom_dataset": lambda **_: {"test": Dataset.from_list(documents)}, "test_split": "test"}
    with _quiet():
        task = ConfigurableTask(config={**config, **own, "num_fewshot": 0, "doc_to_text": "prompt"})
        requests = []
        for number, (document, given) in enumerate(zip(documents, answers, strict=True)):
            made = task.construct_requests(doc=document, ctx="", metadata=(config["task"], number, 1))
            requests.append(made if isinstance(made, list) else [made])
            for request, answer in zip(requests[-1], given, strict=True):
                request.resps.append(answer)
        task._instances = [request for some in requests for request in some]  # where build_all_requests puts them
        task.apply_filters()
        return [
            {
                name: (
                    some[0].filtered_resps[name],
                    task.process_results(document, [request.filtered_resps[name] for request in some]),
                )
                for name in some[0].filtered_resps
            }
            for document, some in zip(documents, requests, strict=True)
        ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval logs each setting."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
