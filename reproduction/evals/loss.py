"""The loss of given responses, as a training pass computes it: nothing is decoded.

    nats = - Σ_j log p(w_j | prompt, w_0 … w_{j-1}),   w = tokens of the response, and the end token

Prompt and response are tokenized apart and the end token counts, as in training; dropout is off.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from reproduction.evals.batching import PREFILL_TOKENS, Batch, context_of, encode, evaluating, left_padded, seconds
from reproduction.evals.capacity import logits_at_once, texts_side_by_side
from reproduction.evals.items import Prompt
from reproduction.evals.task import Protocol
from reproduction.evals.throughput import COST, cost
from reproduction.records import LEFT_OUT

Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt (at least one), and of its response with the end token."""


@torch.no_grad()
def response_nats(model, pairs: Sequence[Pair], *, batch_size: int) -> list[float]:
    """The loss of each response in nats, summed over its tokens, in the order of the pairs.

    Args:
        model: a causal language model, plain or with an adapter, on any one device; it is left in the mode that it
            came in.
        pairs: prompts and responses.
        batch_size: rows of one forward pass at most; fewer where they are long.
    """
    found = [math.nan] * len(pairs)
    with evaluating(model):
        tokens = logits_at_once(model) // model.get_input_embeddings().num_embeddings
        for some in _passes(pairs, batch_size, tokens=tokens):
            kept = max(len(pairs[index][1]) for index in some)
            stems = [[*pairs[index][0], *pairs[index][1][:-1]] for index in some]
            ids, mask, positions = left_padded(stems, model.device)
            logits = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=kept
            ).logits  # what follows each of the last tokens
            responses = [list(pairs[index][1]) for index in some]
            targets = torch.tensor([[-100] * (kept - len(each)) + each for each in responses], device=model.device)
            each = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
            for index, nats in zip(some, each.double().sum(dim=1).tolist(), strict=True):  # 0 where ignored
                found[index] = nats
    return found


def _passes(pairs: Sequence[Pair], batch_size: int, *, tokens: int) -> Iterator[list[int]]:
    """Which pairs go through the model together: rows of like length, the longest first, with logits of `tokens`."""
    order = sorted(range(len(pairs)), key=lambda index: (-sum(map(len, pairs[index])), index))
    some: list[int] = []
    for index in order:
        width, kept = sum(map(len, pairs[(some or [index])[0]])), max(len(pairs[i][1]) for i in (*some, index))
        rows = len(some) + 1
        if some and (rows > batch_size or rows * width > PREFILL_TOKENS or rows * kept > tokens):
            yield some
            some = []
        some.append(index)
    if some:
        yield some


class Loss:
    """The losses of some prompts' responses; a prompt's only choice is its response.

    A row whose response is empty, which has the prompt and the response of an earlier row, or which is longer than the
    model's context is left out: its record says so in the place of a loss.

    Args:
        model, tokenizer: see `response_nats`; the tokenizer has an end token.
        prompts: all that may be asked.
        protocol, stops: not used; as `reproduction.evals.generation.Generation` takes them.

    Raises:
        ValueError: the tokenizer has no end token.
    """

    def __init__(self, model, tokenizer, prompts: Sequence[Prompt], *, protocol: Protocol, stops: Sequence[str]):
        if tokenizer.eos_token_id is None:
            raise ValueError(f"Tokenizer {tokenizer.name_or_path!r} has no end token: set its eos_token.")
        self.model, context, seen = model, context_of(model), {}
        responses = [prompt.choices[0] for prompt in prompts]
        encoded = tokenizer(responses, add_special_tokens=False)["input_ids"]
        self._rows: dict[str, _Row] = {}
        for prompt, start, end in zip(prompts, encode(tokenizer, [p.text for p in prompts]), encoded, strict=True):
            pair, before = (start, [*end, tokenizer.eos_token_id]), seen.setdefault(prompt.prompt_hash, prompt.item_id)
            why = None
            if not prompt.choices[0]:
                why = "empty response"
            elif before != prompt.item_id:
                why = "repeats another row"
            elif context and sum(map(len, pair)) > context:
                why = f"longer than the model's context of {context} tokens"
            self._rows[prompt.item_id] = _Row(pair, why)

    def side_by_side(self) -> int:
        """Responses of one batch."""
        return texts_side_by_side(self.model)

    def batches(self, missing: Sequence[tuple[Prompt, list[int]]], batch_size: int) -> list[Batch]:
        """Longest first."""
        ordered = sorted((p for p, _ in missing), key=lambda p: (-sum(map(len, self._rows[p.item_id].pair)), p.item_id))
        return [(ordered[start : start + batch_size], [0]) for start in range(0, len(ordered), batch_size)]

    def answer(self, batch: Batch) -> list[dict]:
        """The records of a batch: "nats" of each response, the "tokens" that they were summed over, and its "bytes"."""
        prompts, _ = batch
        began, whole = seconds(self.model.device), [p for p in prompts if not self._rows[p.item_id].left_out]
        pairs = [self._rows[prompt.item_id].pair for prompt in whole]
        nats = dict(
            zip((p.item_id for p in whole), response_nats(self.model, pairs, batch_size=len(prompts)), strict=True)
        )
        records = [self._record(prompt, nats.get(prompt.item_id)) for prompt in prompts]
        records[0][COST] = cost(
            prompt_tokens=sum(len(part) for pair in pairs for part in pair),
            prefill_seconds=seconds(self.model.device) - began,
        )
        return records

    def _record(self, prompt: Prompt, nats: float | None) -> dict:
        row, key = self._rows[prompt.item_id], {"item_id": prompt.item_id, "prompt_hash": prompt.prompt_hash}
        if nats is None:
            return key | {"sample": 0, LEFT_OUT: row.left_out}
        return key | {
            "sample": 0,
            "nats": nats,
            "tokens": len(row.pair[1]),
            "bytes": len(prompt.choices[0].encode()),
            "prompt_tokens": len(row.pair[0]),
        }


@dataclass(frozen=True)
class _Row:
    """A row's token ids, and why it is left out (None: it is not)."""

    pair: Pair
    left_out: str | None
