"""Answers on disk, of one process or of several that share the work.

folder/answers.jsonl     what was answered
folder/answers.0.jsonl   what one shard of the work answers meanwhile; `gather` puts these files into the first
folder/meta.json         whose answers they are, and how they were decoded
folder/throughput.json   what it took, see `throughput`
folder/status.json       how asking ended, where that was before its end: {"state": "failed"|"oom"|"interrupted", …}

An answer depends on the model, the prompt, the decoding and the number of its sample, and not on the batch or the
process that it fell to: an evaluation can go on with another batch size and other processes than it began with.
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
"""A batch's first answer has what the batch took under this key, so that it adds up over interruptions and shards."""


@dataclass(frozen=True)
class Shard:
    """Part `index` of the work, counted from 0, of `of` parts."""

    index: int
    of: int

    def file(self, path: Path) -> Path:
        """Where this shard's answers go, beside the answers file that it adds to."""
        return path.with_suffix(f".{self.index}{path.suffix}")


def gather(folder: Path) -> AnswerLog:
    """The answers in a folder, with those of earlier shards put in and their files removed; nobody is at work there.

    Safe to kill at any moment: what was put in already is not put in again.
    """
    path = Path(folder) / ANSWERS
    log = AnswerLog(path)
    for part in sorted(path.parent.glob(f"{path.stem}.*{path.suffix}")):
        log.append(answer for answer in AnswerLog(part) if key_of(answer) not in log)
        part.unlink()
    return log


def answered_prompts(prompts: Prompts, log: AnswerLog) -> list[Prompt | None]:
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
def status_on_failure(folder: Path, *, alone: bool = True) -> Iterator[None]:
    """Writes status.json for what ends the work in a folder early, and lets it pass.

    After an end without an error an older status.json is removed by whoever works alone in the folder.
    """

    def write(**status: str) -> None:
        with contextlib.suppress(RecordError):  # a full disk must not hide what went wrong first
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
    """What an answer is to: item, prompt, number of the sample."""
    return answer["item_id"], answer["prompt_hash"], answer["sample"]


def _out_of_memory(error: Exception) -> bool:
    """torch's allocators and CUDA's libraries raise RuntimeErrors of several classes that agree in these words only."""
    words = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def throughput(answers: Iterable[Mapping[str, Any]], prompts: Sequence[Prompt], protocol: Protocol) -> dict[str, Any]:
    """throughput.json, from all raw answers.

    prompt_tokens, generated_tokens, prefill_seconds, decode_seconds: sums over all batches, whichever process answered
    them: with n processes the clock on the wall saw about an n-th of the seconds. tokens_per_second is of one process:
    tokens generated, or read where nothing is generated, in a second. gpu_bytes is the most that a process needed.
    empty: answers without a sign in them. shortened: prompts in which not all worked examples fitted.
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
