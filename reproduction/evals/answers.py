"""Answers on disk, of one process or of several that share the work.

folder/answers.jsonl     the answers
folder/answers.0.jsonl   answers of a running shard; `gather` merges these files into answers.jsonl
folder/meta.json         identity of the model, and decoding settings
folder/throughput.json   tokens, seconds and memory, see `throughput`
folder/status.json       written only if answering ends early: {"state": "failed"|"oom"|"interrupted", …}

An answer depends on the model, the prompt, the decoding and its sample number, not on the batch or the process. An
interrupted evaluation can therefore continue with another batch size or number of processes.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.evals.items import Prompt
from reproduction.evals.prompts import Prompts
from reproduction.evals.task import DECODED, Protocol
from reproduction.records import ANSWERS, META, AnswerLog, RecordError, read_json, write_json

STATUS, THROUGHPUT = "status.json", "throughput.json"

COST = "cost"
"""Key in a batch's first answer that holds the cost of the batch; costs add up over interruptions and shards."""


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of the work in `of` parts."""

    index: int
    of: int

    def file(self, path: Path) -> Path:
        """Return the path of this shard's answers, next to the answers file `path`."""
        return path.with_suffix(f".{self.index}{path.suffix}")


def gather(folder: Path) -> AnswerLog:
    """Merge the files of earlier shards into answers.jsonl, remove them, and return all answers.

    No other process may write to the folder. The merge may be killed at any time: a repeat adds no duplicates.
    """
    path = Path(folder) / ANSWERS
    log = AnswerLog(path)
    for part in sorted(path.parent.glob(f"{path.stem}.*{path.suffix}")):
        log.append(answer for answer in AnswerLog(part) if key_of(answer) not in log)
        part.unlink()
    return log


def answered_prompts(prompts: Prompts, log: AnswerLog) -> list[Prompt | None]:
    """Return, for each row, the prompt with all samples answered, or None."""
    samples = range(prompts.protocol.samples)
    return prompts.known(lambda prompt: all((prompt.item_id, prompt.prompt_hash, each) in log for each in samples))


def require_model(folder: Path, identity: str) -> None:
    """Raise `RecordError` if meta.json names another model or none."""
    path = Path(folder) / META
    if (known := read_json(path).get("model")) != identity:
        raise RecordError(
            f"the answers in {folder} are another model's ({path} has {known!r}, and this one is {identity!r}): "
            "move the folder away to ask this model, or evaluate the model that gave them"
        )


@contextlib.contextmanager
def status_on_failure(folder: Path, *, alone: bool = True) -> Iterator[None]:
    """Write an exception to status.json and raise it again.

    On success an older status.json is removed if this process works `alone` in the folder.
    """

    def write(**status: str) -> None:
        with contextlib.suppress(RecordError):  # a full disk must not hide the first error
            write_json(folder / STATUS, status)

    try:
        yield
    except KeyboardInterrupt:
        write(state="interrupted")
        raise
    except Exception as error:
        write(state="oom" if _out_of_memory(error) else "failed", reason=f"{type(error).__name__}: {error}")
        raise
    if alone:
        (folder / STATUS).unlink(missing_ok=True)


def key_of(answer: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return the key of an answer: item id, prompt hash, sample number."""
    return answer["item_id"], answer["prompt_hash"], answer["sample"]


def _out_of_memory(error: Exception) -> bool:
    """Compare messages: torch's allocators and CUDA's libraries raise several subclasses of RuntimeError."""
    words = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def throughput(answers: Iterable[Mapping[str, Any]], prompts: Sequence[Prompt], protocol: Protocol) -> dict[str, Any]:
    """Compute the content of throughput.json from all raw answers.

    prompt_tokens, generated_tokens, prefill_seconds, decode_seconds: sums over the batches of all processes; with n
    processes the wall-clock time is about an n-th of the seconds. tokens_per_second: generated tokens (prompt tokens if
    nothing is generated) per second of one process. gpu_bytes: peak GPU memory of a process. empty: blank answers.
    shortened: prompts with fewer worked examples than requested.
    """
    answers = list(answers)
    costs = [answer[COST] for answer in answers if COST in answer]
    names = ("prompt_tokens", "generated_tokens", "prefill_seconds", "decode_seconds")
    sums = {name: round(sum(each[name] for each in costs), 4) for name in names}
    generated = protocol.scoring == DECODED
    seconds = sums["prefill_seconds"] + sums["decode_seconds"]
    tokens = sums["generated_tokens" if generated else "prompt_tokens"]
    return sums | {
        "answers": len(answers),
        "empty": sum(not answer["raw"].strip() for answer in answers) if generated else 0,
        "shortened": sum(prompt.shots is not None and prompt.shots < protocol.num_fewshot for prompt in prompts),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "gpu_bytes": max((each["gpu_bytes"] for each in costs), default=0),
    }
