"""Log-probabilities of the answers that an item can have: nothing is decoded.

For a prompt with the choices c the score is

    log p(c | prompt) = Σ_j log p(w_j | w_0 … w_{j-1}),   w = tokens of prompt + c,   j ≥ k

where k is the length of what the tokens of the prompt and of every prompt + c have in common at their start. Prompt and
choice are encoded together, as the model would have read them: whether a letter is " A" or "A", and whether it melts
into the prompt's last token, depends on what it follows.

Choices that differ in their last token alone, as letters do, are read off one forward pass of what is before it; an
item's passes stand in one batch. Batches are fixed, longest first, and each is recorded whole when it is done, so an
interrupted evaluation ends with the numbers that it would have had.

On a GPU a batch's items begin alike, with the worked examples of one subject, and what they have in common is read once
for all: most of a few-shot benchmark. Elsewhere it is read for each, so that results of small models stay to the bit
what they are. Left out: normalising by length (letters are all of one length).
"""

import copy
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

import torch
from transformers import DynamicCache

from idlora.evals.answers import Share
from idlora.evals.asking import ask_in_batches, context_of, encode, left_padded, passes, seconds
from idlora.evals.items import Prompt, record
from idlora.evals.throughput import cost

SHARED_TOKENS = 256  # from so many on, what a batch's items have in common is worth a pass of its own


def loglikelihoods(
    model,
    tokenizer,
    prompts: Sequence[Prompt],
    *,
    choices: Sequence[Sequence[str]],
    batch_size: int,
    path: Path,
    share: Share | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[float]]:
    """Natural log-probability of each choice of each prompt, in their order.

    Args:
        model: causal language model, plain or with an adapter, on any one device; left in the mode it came in.
        tokenizer: its tokenizer; texts are encoded with the start token, if it has one.
        choices: for each prompt the texts that may follow it, such as [" A", " B"].
        batch_size: items computed together.
        path: file of answers; those already there are kept, new ones are appended batch by batch.
        share: answers this part of the missing batches, beside other processes; None answers all.
        progress: called with (items done, items in all).

    Raises:
        ValueError: no prompts, an item id twice, choices that add nothing to their prompt, or a prompt that does not
            fit the model's context.
        ShareAnswered: at the end of a share.
    """
    items = dict(zip((p.item_id for p in prompts), _encode(tokenizer, prompts, choices), strict=True))
    longest, context = max((item.length for item in items.values()), default=0), context_of(model)
    if context and longest > context:
        raise ValueError(
            f"a prompt of {longest} tokens exceeds the model's context of {context}: take its row out of the data, or "
            "evaluate a model with a longer context"
        )
    batches = _batches(prompts, items, batch_size, alike=_reads_once(model))

    def answer(number: int) -> tuple[list[dict], dict]:
        batch = batches[number]
        found, took = _score_batch(model, [items[prompt.item_id] for prompt in batch])
        return [
            record(prompt, 0, "", parsed=None, gold=None, scores={"answered": 1.0}, loglikelihoods=logprobs)
            for prompt, logprobs in zip(batch, found, strict=True)
        ], took

    log = ask_in_batches(
        model,
        prompts,
        [[(prompt, 0) for prompt in batch] for batch in batches],
        answer=answer,
        path=path,
        share=share,
        progress=progress,
    )
    return [log.get(prompt.item_id)["loglikelihoods"] for prompt in prompts]


@dataclass(frozen=True)
class _Item:
    """An item's tokens: the k that prompt and choices have in common, and what each choice has after them."""

    prefix: array
    tails: list[list[int]]

    @property
    def length(self) -> int:
        """Tokens that the model reads for the longest choice; its last one is only predicted."""
        return len(self.prefix) + max(map(len, self.tails)) - 1


def _encode(tokenizer, prompts, choices) -> Iterator[_Item]:
    texts = (text for p, some in zip(prompts, choices, strict=True) for text in (p.text, *(p.text + c for c in some)))
    encoded = encode(tokenizer, texts)
    for prompt, some in zip(prompts, choices, strict=True):
        alone, *whole = islice(encoded, 1 + len(some))
        k = min(_common(alone, ids) for ids in whole)
        tails = [ids[k:] for ids in whole]
        if k == 0 or not all(tails) or len(set(map(tuple, tails))) < len(tails):
            raise ValueError(f"the choices {list(some)} of {prompt.item_id} cannot be told apart by their tokens")
        yield _Item(array("i", alone[:k]), tails)


def _reads_once(model) -> bool:
    """Whether items that begin alike are put together, to read their beginning once."""
    return model.device.type == "cuda"


def _batches(prompts: Sequence[Prompt], items: dict[str, _Item], size: int, *, alike: bool) -> list[list[Prompt]]:
    """Longest first; if ``alike``, no batch has items that differ within their first `SHARED_TOKENS`."""
    groups = defaultdict(list)
    for prompt in sorted(prompts, key=lambda p: (-items[p.item_id].length, p.item_id)):
        groups[tuple(items[prompt.item_id].prefix[:SHARED_TOKENS]) if alike else ()].append(prompt)
    return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]


def _common(first: list[int], second: list[int]) -> int:
    """Length of the common start of two sequences."""
    if second[: len(first)] == first:  # nearly always, and many times faster than to count
        return len(first)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


@torch.no_grad()
def _score_batch(model, items: Sequence[_Item]) -> tuple[list[list[float]], dict]:
    """Scores of every choice of every item, and what they took; stems (a sequence without its last token) that are
    equal are one row."""
    began = seconds(model.device)
    stems: dict[tuple[int, ...], int] = {}
    rows = [[stems.setdefault((*item.prefix, *tail[:-1]), len(stems)) for tail in item.tails] for item in items]
    kept = max(len(tail) for item in items for tail in item.tails)
    scores = _after(model, list(stems), kept=kept)
    found = [
        [
            sum(float(scores[row, position, token]) for position, token in enumerate(tail, start=kept - len(tail)))
            for row, tail in zip(places, item.tails, strict=True)
        ]
        for places, item in zip(rows, items, strict=True)
    ]
    return found, cost(prompt_tokens=sum(map(len, stems)), prefill_seconds=seconds(model.device) - began)


def _after(model, stems: Sequence[tuple[int, ...]], *, kept: int) -> torch.Tensor:
    """Log-probabilities (B, kept, V) float32, on the CPU, at the last ``kept`` places of every stem."""
    common = min(_common(min(stems), max(stems)), min(map(len, stems)) - kept) if _reads_once(model) else 0
    window = getattr(model.config, "sliding_window", None)
    # Padding comes to lie behind the beginning: no matter to positions, but a sliding window would count it.
    if common < SHARED_TOKENS or (window is not None and window < max(map(len, stems))):
        common = 0
    beginning = DynamicCache()
    if common:
        ids = torch.tensor([stems[0][:common]], device=model.device)
        model(input_ids=ids, past_key_values=beginning, use_cache=True, logits_to_keep=1)
    parts = []
    for some in passes(stems, model.device):
        ids, mask, positions = left_padded([stem[common:] for stem in some], model.device)
        cached = {}
        if common:
            cached["past_key_values"] = copy.deepcopy(beginning)
            cached["past_key_values"].batch_repeat_interleave(len(some))
            mask = torch.cat([mask.new_ones(len(some), common), mask], dim=1)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions + common, use_cache=bool(common),
            logits_to_keep=kept, **cached,
        ).logits  # the last one says what follows a stem  # fmt: skip
        parts.append(logits.float().log_softmax(-1).cpu())
    return torch.cat(parts)
