"""Loss of given responses, computed as in training; nothing is decoded.

    nats = - Σ_j log p(w_j | prompt, w_0 … w_{j-1}),   w = tokens of the response, and the end token

Prompt and response are tokenized separately and the end token counts, as in training; dropout is off.
"""

import math
from collections.abc import Iterator, Sequence

import torch

from reproduction.evals import batching
from reproduction.evals.answers import COST
from reproduction.evals.batching import PREFILL_TOKENS, Batch, logits_at_once
from reproduction.evals.items import Prompt
from reproduction.evals.task import Protocol
from reproduction.records import LEFT_OUT

Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt (at least one), and of its response including the end token."""


@torch.no_grad()
def response_nats(model, pairs: Sequence[Pair], *, batch_size: int) -> list[float]:
    """Return each response's loss in nats, summed over its tokens. The model's mode is restored.

    ``batch_size`` is the maximum number of rows per forward pass; long rows get fewer.
    """
    found = [math.nan] * len(pairs)
    with batching.evaluating(model):
        tokens = logits_at_once(model) // model.get_input_embeddings().num_embeddings
        for some in _passes(pairs, batch_size, tokens=tokens):
            responses = [list(pairs[index][1]) for index in some]
            kept = max(map(len, responses))
            stems = [[*pairs[index][0], *pairs[index][1][:-1]] for index in some]
            ids, mask, positions = batching.left_padded(stems, model.device)
            logits = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=kept
            ).logits
            targets = torch.tensor([[-100] * (kept - len(each)) + each for each in responses], device=model.device)
            each = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), targets, reduction="none")
            for index, nats in zip(some, each.double().sum(dim=1).tolist(), strict=True):  # 0 where ignored
                found[index] = nats
    return found


def _passes(pairs: Sequence[Pair], batch_size: int, *, tokens: int) -> Iterator[list[int]]:
    """Group pairs (by index) into forward passes of similar length, longest first, up to `tokens` rows of logits."""
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
    """Scorer "loss": losses of responses; a prompt's only choice is its response. Arguments as for `Generation`.

    Rows with an empty response, duplicates of an earlier row, and rows longer than the model's context are left out:
    their records give the reason instead of a loss. Raises ValueError if the tokenizer has no end token.
    """

    def __init__(self, model, tokenizer, prompts: Sequence[Prompt], *, protocol: Protocol, stops: Sequence[str]):
        if tokenizer.eos_token_id is None:
            raise ValueError(f"Tokenizer {tokenizer.name_or_path!r} has no end token: set its eos_token.")
        self.model, context, seen = model, batching.context_of(model), {}
        self._pairs: dict[str, Pair] = {}
        self._left_out: dict[str, str] = {}
        starts = batching.encode(tokenizer, [prompt.text for prompt in prompts])
        ends = tokenizer([prompt.choices[0] for prompt in prompts], add_special_tokens=False)["input_ids"]
        for prompt, start, end in zip(prompts, starts, ends, strict=True):
            pair = self._pairs[prompt.item_id] = (start, [*end, tokenizer.eos_token_id])
            if not prompt.choices[0]:
                self._left_out[prompt.item_id] = "empty response"
            elif seen.setdefault(prompt.prompt_hash, prompt.item_id) != prompt.item_id:
                self._left_out[prompt.item_id] = "repeats another row"
            elif context and sum(map(len, pair)) > context:
                self._left_out[prompt.item_id] = f"longer than the model's context of {context} tokens"

    def side_by_side(self) -> int:
        return batching.texts_side_by_side(self.model)

    def batches(self, missing: Sequence[tuple[Prompt, list[int]]], batch_size: int) -> list[Batch]:
        ordered = batching.longest_first(
            [prompt for prompt, _ in missing], lambda p: sum(map(len, self._pairs[p.item_id]))
        )
        return batching.in_batches(ordered, batch_size)

    def answer(self, batch: Batch) -> list[dict]:
        """Return the records of a batch: "nats" of each response, its "tokens" and its "bytes"."""
        began = batching.seconds(self.model.device)
        pairs = {p.item_id: self._pairs[p.item_id] for p in batch[0] if p.item_id not in self._left_out}
        nats = dict(zip(pairs, response_nats(self.model, list(pairs.values()), batch_size=len(batch[0])), strict=True))
        records = []
        for prompt in batch[0]:
            key = {"item_id": prompt.item_id, "prompt_hash": prompt.prompt_hash, "sample": 0}
            if prompt.item_id in self._left_out:
                records.append(key | {LEFT_OUT: self._left_out[prompt.item_id]})
            else:
                start, response = pairs[prompt.item_id]
                counts = {
                    "tokens": len(response),
                    "bytes": len(prompt.choices[0].encode()),
                    "prompt_tokens": len(start),
                }
                records.append(key | {"nats": nats[prompt.item_id], **counts})
        records[0][COST] = batching.cost(
            prompt_tokens=sum(len(part) for pair in pairs.values() for part in pair),
            prefill_seconds=batching.seconds(self.model.device) - began,
        )
        return records
