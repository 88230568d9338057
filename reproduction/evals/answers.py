"""Answers on disk, of one process or of several that share the work.

folder/answers.jsonl     what was answered
folder/answers.0.jsonl   what one share of the work answers meanwhile: each has a file, and `gather` ends them
folder/meta.json         whose answers they are, and how they were decoded
folder/throughput.json   what it took; see `reproduction.evals.throughput`
folder/status.json       how asking ended, where that was before its end: {"state": "failed"|"oom"|"interrupted", …}

An answer depends on the model, the prompt, the decoding and the number of its sample, and on nothing else: not on the
batch or the process that it fell to. So an evaluation can go on with another batch size and other processes than it
began with, and whoever scores can change without a model.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reproduction.evals.prompts import Prompts
from reproduction.records import ANSWERS, META, AnswerLog, RecordError, read_json, write_json

STATUS, THROUGHPUT = "status.json", "throughput.json"


@dataclass(frozen=True)
class Shard:
    """Part `index` of the work, counted from 0, of `of` parts."""

    index: int
    of: int

    def file(self, path: Path) -> Path:
        """Where this share's answers go, beside the answers file that it adds to."""
        return path.with_suffix(f".{self.index}{path.suffix}")


def gather(folder: Path) -> AnswerLog:
    """The answers in a folder, with those of earlier shares put in and their files taken away; nobody is at work there.

    Safe to kill at any moment: what was put in already is not put in again.
    """
    path = Path(folder) / ANSWERS
    log = AnswerLog(path)
    for part in sorted(path.parent.glob(f"{path.stem}.*{path.suffix}")):
        log.append(answer for answer in AnswerLog(part) if key_of(answer) not in log)
        part.unlink()
    return log


def unanswered(prompts: Prompts, log: AnswerLog) -> int:
    """How many items lack an answer to a sample."""
    return sum(prompt is None for prompt in answered_prompts(prompts, log))


def answered_prompts(prompts: Prompts, log: AnswerLog) -> list:
    """Of each row the prompt to which all samples are answered, or None."""
    samples = range(prompts.protocol.samples)
    return prompts.known(lambda prompt: all((prompt.item_id, prompt.prompt_hash, each) in log for each in samples))


def require_model(folder: Path, identity: str) -> None:
    """Raises `RecordError` where a folder's answers are another model's, or nobody's."""
    path = Path(folder) / META
    if (known := read_json(path).get("model")) != identity:
        raise RecordError(
            f"the answers in {folder} are another model's ({path} has {known!r}, and this one is {identity!r}): "
            "move the folder away to ask this model, or evaluate the model that gave them"
        )


@contextlib.contextmanager
def ending_on_disk(folder: Path, *, alone: bool = True) -> Iterator[None]:
    """Writes status.json for what ends the work in a folder early, and lets it pass; who works alone there takes an
    older one away.
    """

    def note(**status: str) -> None:
        with contextlib.suppress(RecordError):  # a full disk must not hide what went wrong first
            write_json(folder / STATUS, status)

    try:
        yield
    except KeyboardInterrupt:
        note(state="interrupted")
        raise
    except Exception as error:
        note(state="oom" if _out_of_memory(error) else "failed", reason=f"{type(error).__name__}: {error}")
        raise
    if alone:
        (folder / STATUS).unlink(missing_ok=True)


def key_of(answer: dict) -> tuple[str, str, int]:
    """What an answer is to: item, prompt, number of the sample."""
    return answer["item_id"], answer["prompt_hash"], answer["sample"]


def _out_of_memory(error: Exception) -> bool:
    """torch's allocators and CUDA's libraries raise RuntimeErrors of several classes that agree in these words only."""
    words = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
