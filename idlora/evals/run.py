"""One evaluation: from a model and a benchmark's rows to the records of every item.

folder/meta.json       what was asked: {"benchmark", "protocol", "items", "samples", "data_digest"}
folder/answers.jsonl   raw answers, batch by batch, while the evaluation is under way; see `idlora.evals.answers`
folder/items.jsonl     the records, scored
folder/throughput.json what it took; see `idlora.evals.throughput`
folder/status.json     how it ended, where that was before its end: {"state": "failed"|"oom"|"interrupted", "reason"}
folder/DONE            SHA-256 of items.jsonl, written last
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from idlora.evals import registry
from idlora.evals.answers import ANSWERS, Share, ShareAnswered, gather
from idlora.evals.items import sha16
from idlora.evals.prompts import examples, prompts
from idlora.evals.protocol import Permissions, Protocol
from idlora.evals.throughput import throughput
from idlora.records import ItemLog, RecordError, is_complete, mark_done, read_json, write_json

STATUS, THROUGHPUT = "status.json", "throughput.json"
CHOICE_TOKENS = 4
"""Room to leave after a prompt for a choice's letter; one or two suffice for every tokenizer we know."""


def evaluate(
    *,
    model,
    tokenizer,
    protocol: Protocol,
    rows: list[dict],
    folder: Path,
    batch_size: int,
    permissions: Permissions,
    progress: Callable[[int, int], None] | None = None,
    fewshot_rows: list[dict] | None = None,
    share: Share | None = None,
) -> Path:
    """Runs the protocol's benchmark on a model and returns the folder of its records, complete.

    A complete folder is left as it is; one that was interrupted is taken up at its first missing batch and ends with
    the records that it would have had. Greedy answers do not depend on the batch size, sampled ones do.

    Args:
        model, tokenizer: a causal language model, plain or with an adapter, on any one device.
        protocol: what is asked, how it is decoded and how it is judged.
        rows: of `idlora.data.load_rows`, each with its own "id"; the first `protocol.limit` are used.
        folder: of this evaluation alone.
        batch_size: sequences decoded together.
        permissions: what the user allows; only benchmarks that run code ask.
        progress: called with (done, total) of whatever is being done: answers, then programs.
        fewshot_rows: rows to show as worked examples, where the protocol has any; the first ones are taken, of the
            asked row's subject where rows have one, and without the asked row.
        share: answer only this part of what is missing, beside other processes, and score nothing. When all are done,
            a call without it scores; its model may be one without weights, on the meta device.

    Whatever ends it early is raised, after it was written to status.json; what is refused before anything is written
    (a ValueError below) leaves the folder as it was.

    Raises:
        ValueError: no rows, too few few-shot rows, or a folder that holds an evaluation of something else.
        idlora.evals.sandbox.ExecutionRefused: the benchmark runs code, and that is not allowed or not possible.
    """
    folder = Path(folder)
    rows = rows[: protocol.limit]
    if not rows:
        raise ValueError(f"{protocol.benchmark} has no rows: nothing can be evaluated")
    shown = examples(rows, fewshot_rows or [], protocol)
    once = {row["id"]: row for some in shown for row in some}
    meta = {
        "benchmark": protocol.benchmark,
        "protocol": asdict(protocol),
        "items": len(rows),
        "samples": protocol.samples,
        "data_digest": sha16(json.dumps([rows, list(once.values())], sort_keys=True)),
    }
    if (folder / "meta.json").exists() and _asked(read_json(folder / "meta.json")) != _asked(meta):
        raise ValueError(f"{folder} holds an evaluation of another protocol or data: give this one a folder of its own")
    if is_complete(folder):
        return folder
    with _ending_on_disk(folder):
        write_json(folder / "meta.json", meta)

        from idlora.evals import asking, generation, likelihood  # torch: a complete folder needs none of it

        answers = folder / ANSWERS
        if share is None:
            gather(answers)  # of an attempt that several processes shared
        ask = partial(
            likelihood.loglikelihoods if protocol.scoring == "likelihood" else generation.generate,
            model,
            tokenizer,
            batch_size=batch_size,
            path=answers,
            share=share,
            progress=progress,
        )
        if protocol.scoring == "generated":
            ask = partial(ask, protocol=protocol)
        fits = partial(asking.fits, model, tokenizer, new_tokens=protocol.max_new_tokens or CHOICE_TOKENS)
        asked = prompts(rows, shown, protocol=protocol, fits=fits)
        try:
            records = registry.load("benchmarks", protocol.benchmark).run(
                asked, protocol=protocol, ask=ask, permissions=permissions, progress=progress
            )
        except ShareAnswered:
            return folder
        items = folder / "items.jsonl"
        items.unlink(missing_ok=True)  # scores are made again from all answers, never added to
        ItemLog(items).append(records)
        write_json(folder / THROUGHPUT, throughput(ItemLog(answers), asked, protocol))
        (folder / STATUS).unlink(missing_ok=True)  # of an earlier attempt; before the mark, so that none outlives it
        mark_done(folder)
        answers.unlink(missing_ok=True)
    return folder


def _asked(meta: dict) -> dict:
    """A meta.json without the protocol's name, which can change while what is asked stays."""
    return meta | {"protocol": {key: value for key, value in meta["protocol"].items() if key != "name"}}


@contextlib.contextmanager
def _ending_on_disk(folder: Path) -> Iterator[None]:
    """Writes status.json for what ends the evaluation early, and lets it pass."""

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


def _out_of_memory(error: Exception) -> bool:
    """torch's allocators and CUDA's libraries raise RuntimeErrors of several classes that agree in these words only."""
    words = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
