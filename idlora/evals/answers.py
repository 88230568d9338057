"""Raw answers on disk while an evaluation is under way, of one process or of several that share the work.

folder/answers.jsonl     what was answered
folder/answers.0.jsonl   what one share of the work answers meanwhile: each has a file, and `gather` ends them

An evaluation's batches are fixed, and a share is every n-th of those that are missing when it begins. So what an answer
is does not depend on the number of processes, and an evaluation can go on with another number than it began with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from idlora.evals.items import Prompt
from idlora.records import ItemLog

ANSWERS = "answers.jsonl"
COST = "cost"
"""A batch's first answer has what the batch took under this key; see `idlora.evals.throughput`."""


@dataclass(frozen=True)
class Share:
    """Part `index` of the work, counted from 0, of `of` parts."""

    index: int
    of: int

    def file(self, path: Path) -> Path:
        """Where this share's answers go, beside the answers file that it adds to."""
        return path.with_suffix(f".{self.index}{path.suffix}")


class ShareAnswered(Exception):
    """A share's answers are on disk; there is nothing to score before the others' are there too."""


def open_log(path: Path, prompts: Sequence[Prompt]) -> ItemLog:
    """The answers so far, or none where one of them answers another text: then all are asked again.

    Raises ValueError for no prompts, or an item id twice.
    """
    if not prompts:
        raise ValueError("there is nothing to answer: the benchmark has no rows")
    hashes = {prompt.item_id: prompt.prompt_hash for prompt in prompts}
    if len(hashes) < len(prompts):
        raise ValueError("two rows have the same id: give each row its own")
    log = ItemLog(path)
    if any(hashes.get(answer["item_id"]) != answer["prompt_hash"] for answer in log.records):
        path.unlink(missing_ok=True)  # every share finds the same, and one of them is the first
        log = ItemLog(path)
    return log


def gather(path: Path) -> None:
    """Put what the shares answered into the one answers file and take their files away; nobody is at work on them.

    Safe to kill at any moment: what was put in already is not put in again.
    """
    parts = sorted(path.parent.glob(f"{path.stem}.*{path.suffix}"))
    for part in parts:
        log = ItemLog(path)
        log.append(answer for answer in ItemLog(part) if (answer["item_id"], answer["sample"]) not in log)
        part.unlink()
