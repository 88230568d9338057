"""The first step of an evaluation: a model's answers, on disk. The second, `scoring`, needs no model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from reproduction.data.templates import Template
from reproduction.evals import batching
from reproduction.evals.answers import THROUGHPUT, Shard, gather, key_of, require_model, status_on_failure, throughput
from reproduction.evals.generation import Generation
from reproduction.evals.likelihood import Likelihood
from reproduction.evals.loss import Loss
from reproduction.evals.prompts import Prompts
from reproduction.evals.task import Protocol, decoding, stops
from reproduction.records import ANSWERS, META, AnswerLog, RecordError, read_json, write_json

SCORERS = {"generated": Generation, "likelihood": Likelihood, "loss": Loss}
CHOICE_TOKENS = 4  # room to leave after a prompt for a choice's letter; one or two suffice for every tokenizer we know


def answer(
    *,
    model,
    tokenizer,
    protocol: Protocol,
    rows: list[dict],
    shown: list[dict],
    template: Template,
    folder: Path,
    identity: str,
    batch_size: int | None,
    share: Shard | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Asks the model for every answer that the folder lacks, and records them batch by batch.

    Args:
        model, tokenizer: a causal language model, plain or with an adapter, on any one device.
        protocol: what is asked, and how it is decoded.
        rows: of the benchmark; the first `protocol.limit` are asked.
        shown: rows to show as worked examples.
        template: of prompts in the layout "template".
        folder: of one model's answers under one decoding.
        identity: what tells the model, with its adapter, from every other.
        batch_size: sequences computed together, None as many as the device holds; no answer depends on it.
        share: answer only this part of what is missing, beside other processes, into a file of its own.
        progress: called with (answers done, answers in all), of this share.

    Whatever ends the asking early is raised, after it was written to status.json.

    Raises:
        ValueError: no rows, two of one id, too few worked examples, choices that cannot be told apart, or a prompt that
            does not fit the model's context.
        RecordError: the folder holds answers of another model, or damaged ones.
    """
    folder, share = Path(folder), share or Shard(0, 1)
    alone = share.of == 1
    fits = partial(batching.fits, model, tokenizer, new_tokens=protocol.max_new_tokens or CHOICE_TOKENS)
    prompts = Prompts(rows, shown, protocol=protocol, template=template).fitting(fits)
    scorer = SCORERS[protocol.scoring](model, tokenizer, prompts, protocol=protocol, stops=stops(protocol, template))
    _claim(folder, {"model": identity, "context": batching.context_of(model), **decoding(protocol, template)})
    log = gather(folder) if alone else AnswerLog(folder / ANSWERS)
    missing = [
        (prompt, samples)
        for prompt in prompts
        if (samples := [s for s in range(protocol.samples) if (prompt.item_id, prompt.prompt_hash, s) not in log])
    ]
    if batch_size is None:  # and no fewer batches than there are shares of them
        batch_size = min(scorer.side_by_side(), -(-sum(len(s) for _, s in missing) // share.of) or 1)
    batches = scorer.batches(missing, batch_size)[share.index :: share.of]
    mine = log if alone else AnswerLog(share.file(folder / ANSWERS))
    done, total = 0, sum(len(some) * len(samples) for some, samples in batches)
    with status_on_failure(folder, alone=alone), batching.evaluating(model):
        for some, samples in batches:
            # Where two protocols ask the same, such as for two judges, a share has answered it for the first.
            if not all((each.item_id, each.prompt_hash, s) in mine for each in some for s in samples):
                records = scorer.answer((some, samples))
                mine.append(record for record in records if key_of(record) not in mine)
            done += len(some) * len(samples)
            if progress:
                progress(done, total)
    if alone:
        write_json(folder / THROUGHPUT, throughput(log, prompts, protocol))


def _claim(folder: Path, meta: dict) -> None:
    """Writes whose answers a folder holds, or compares with what is there."""
    path = folder / META
    if not path.exists() and not (folder / ANSWERS).exists():  # answers that nobody claims may be another model's
        write_json(path, meta)
        return
    require_model(folder, meta["model"])
    known = read_json(path)
    if other := [key for key in meta if known.get(key) != meta[key]]:
        raise RecordError(
            f"{path} is of answers with another {other[0]} ({known.get(other[0])!r}, here {meta[other[0]]!r}): move "
            f"{folder} away to ask again"
        )
