"""Items as they are put to a model and as they are recorded."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """A row's text as the model sees it.

    Args:
        row: of the benchmark, with its "id".
        text: whole, worked examples included.
        shots: how many worked examples are in it; None where none were asked for.
        choices: the answers whose likelihood is asked for; empty where an answer is generated.
        apart: whether what follows is tokenized apart from the prompt, as training does it.
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
        """16 hex digits of all that is put to the model."""
        return sha16(json.dumps([self.text, self.choices, self.apart]))


def sha16(text: str) -> str:
    """First 16 hex digits of SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record(
    prompt: Prompt, sample: int, *, raw: str, parsed: Any, gold: Any, scores: dict[str, float], **extra: Any
) -> dict[str, Any]:
    """One line of items.jsonl: what was asked (by hash), what came back, how it was read, what it scored (0 to 1).

    Where worked examples were asked for, "shots" says how many of them fitted.
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
