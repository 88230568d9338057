"""Prompts of items, and the records of their answers."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """The prompt of one row.

    Args:
        row: row of the benchmark, with its "id".
        text: full text, worked examples included.
        shots: number of worked examples in it; None if none were requested.
        choices: answers to score by likelihood or loss; empty if an answer is generated.
        apart: whether the answer is tokenized separately from the prompt, as in training.
    """

    row: dict
    text: str
    shots: int | None = None
    choices: tuple[str, ...] = ()
    apart: bool = True

    @property
    def item_id(self) -> str:
        return self.row["id"]

    @cached_property
    def prompt_hash(self) -> str:
        """16 hex digits that identify text, choices and tokenization."""
        return sha16(json.dumps([self.text, self.choices, self.apart]))


def sha16(text: str) -> str:
    """Return the first 16 hex digits of SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record(
    prompt: Prompt, sample: int, *, raw: str, parsed: Any, gold: Any, scores: dict[str, float], **extra: Any
) -> dict[str, Any]:
    """Return one line of items.jsonl: hash of the prompt, raw and parsed answer, gold answer, scores.

    If worked examples were requested, "shots" is the number that fitted.
    """
    if prompt.shots is not None:
        extra["shots"] = prompt.shots
    return {
        "item_id": prompt.item_id,
        "item_hash": sha16(json.dumps(prompt.row, sort_keys=True)),
        "prompt_hash": prompt.prompt_hash,
        "sample": sample,
        "raw": raw,
        "parsed": parsed,
        "gold": gold,
        "scores": scores,
        **extra,
    }
