"""First step of an evaluation: write a model's answers to disk. The second step is `scoring`."""

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
CHOICE_TOKENS = 4  # reserved after a prompt for a choice's letter; all known tokenizers need one or two


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
    """Generate every answer that the folder lacks, and append the answers batch by batch.

    An exception on the way is written to status.json and raised again.

    Args:
        model, tokenizer: a causal language model, plain or with an adapter, on one device.
        protocol: settings of the evaluation.
        rows: rows of the benchmark; the first `protocol.limit` are used.
        shown: rows for worked examples.
        template: prompt template of the layout "template".
        folder: folder of one model's answers under one decoding.
        identity: identity of the model with its adapter.
        batch_size: sequences per batch, None for as many as the device holds; answers do not depend on it.
        share: answer only this shard of the missing answers, into its own file.
        progress: called with (answers done, answers in this shard).

    Raises:
        ValueError: no rows, a duplicate id, too few worked examples, choices with equal tokens, or a prompt that does
            not fit the model's context.
        RecordError: the folder holds another model's answers, or damaged ones.
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
    if batch_size is None:  # at least one batch per shard
        batch_size = min(scorer.side_by_side(), -(-sum(len(s) for _, s in missing) // share.of) or 1)
    batches = scorer.batches(missing, batch_size)[share.index :: share.of]
    mine = log if alone else AnswerLog(share.file(folder / ANSWERS))
    done, total = 0, sum(len(some) * len(samples) for some, samples in batches)
    with status_on_failure(folder, alone=alone), batching.evaluating(model):
        for some, samples in batches:
            # Another protocol with the same prompts (such as with another judge) may have answered them.
            if not all((each.item_id, each.prompt_hash, s) in mine for each in some for s in samples):
                records = scorer.answer((some, samples))
                mine.append(record for record in records if key_of(record) not in mine)
            done += len(some) * len(samples)
            if progress:
                progress(done, total)
    if alone:
        write_json(folder / THROUGHPUT, throughput(log, prompts, protocol))


def _claim(folder: Path, meta: dict) -> None:
    """Write meta.json, or raise RecordError if the existing one differs."""
    path = folder / META
    if not path.exists() and not (folder / ANSWERS).exists():  # answers without a meta.json may be another model's
        write_json(path, meta)
        return
    require_model(folder, meta["model"])
    known = read_json(path)
    if other := [key for key in meta if known.get(key) != meta[key]]:
        raise RecordError(
            f"{path} is of answers with another {other[0]} ({known.get(other[0])!r}, here {meta[other[0]]!r}): move "
            f"{folder} away to ask again"
        )
