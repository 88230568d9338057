"""Log-probabilities of an item's choices; nothing is decoded.

The score of a choice c is

    log p(c | prompt) = Σ_j log p(w_j | w_0 … w_{j-1}),   w = tokens of prompt and c,   j ≥ k

In the layout "template" prompt and choice are tokenized separately, as in training, and k is the prompt's length. In
the layout "raw" they are tokenized together, because a letter's token (" A" or "A", possibly merged with the prompt's
last one) depends on the text before it; k is then the length of the longest common prefix of the tokens of the prompt
and of every prompt + c.

Choices that differ only in their last token, such as letters, share one forward pass. On a GPU the items of a batch
share a beginning, such as the worked examples of one subject, and this prefix, most of a few-shot prompt, is computed
once. Scores are not normalised by length.
"""

import copy
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from typing import NamedTuple

import torch
from transformers import DynamicCache

from reproduction.evals import batching
from reproduction.evals.answers import COST
from reproduction.evals.batching import Batch, encode
from reproduction.evals.items import Prompt
from reproduction.evals.task import Protocol

ENDING = 128  # last characters of a prompt that are tokenized again with each choice, instead of all of it
AGREED = 8  # least number of tokens on which ending and prompt must agree before the first that a choice changes
SHARED_TOKENS = 256  # shortest common prefix of a batch that is worth its own pass


class _Item(NamedTuple):
    """An item's tokens: the k common ones, and the remaining tokens of each choice."""

    prefix: array
    tails: list[list[int]]

    @property
    def length(self) -> int:
        """Input tokens of the longest choice; its last token is only predicted."""
        return len(self.prefix) + max(map(len, self.tails)) - 1


class Likelihood:
    """Scorer "likelihood": log-probabilities of choices. Arguments as for `generation.Generation`.

    Raises ValueError for choices with no tokens or equal tokens, and for a prompt that exceeds the model's context.
    """

    def __init__(self, model, tokenizer, prompts: Sequence[Prompt], *, protocol: Protocol, stops: Sequence[str]):
        self.model = model
        self._items = dict(zip((p.item_id for p in prompts), _encode(tokenizer, prompts), strict=True))
        longest, context = max(item.length for item in self._items.values()), batching.context_of(model)
        if context and longest > context:
            raise ValueError(
                f"a prompt of {longest} tokens exceeds the model's context of {context}: take its row out of the data, "
                "or evaluate a model with a longer context"
            )

    def side_by_side(self) -> int:
        return batching.texts_side_by_side(self.model)

    def batches(self, missing: Sequence[tuple[Prompt, list[int]]], batch_size: int) -> list[Batch]:
        """Split into batches, longest first; on a GPU items with a common beginning are grouped."""
        ordered = batching.longest_first(
            [prompt for prompt, _ in missing], lambda prompt: self._items[prompt.item_id].length
        )
        starts = {prompt.item_id: self._start(prompt) for prompt in ordered}
        shared, groups = Counter(starts.values()), defaultdict(list)
        for prompt in ordered:
            start = starts[prompt.item_id]
            groups[start if shared[start] > 1 else ()].append(prompt)
        return [batch for group in groups.values() for batch in batching.in_batches(group, batch_size)]

    def _start(self, prompt: Prompt) -> tuple[int, ...]:
        prefix = self._items[prompt.item_id].prefix
        return tuple(prefix[:SHARED_TOKENS]) if _shares_prefixes(self.model) and len(prefix) > SHARED_TOKENS else ()

    def answer(self, batch: Batch) -> list[dict]:
        """Return the records of a batch, with the natural log-probability of each choice in order."""
        items = [self._items[prompt.item_id] for prompt in batch[0]]
        found, took = _score_batch(self.model, items)
        records = [
            {
                "item_id": prompt.item_id,
                "prompt_hash": prompt.prompt_hash,
                "sample": 0,
                "logprobs": logprobs,
                "prompt_tokens": len(item.prefix),
            }
            for prompt, item, logprobs in zip(batch[0], items, found, strict=True)
        ]
        records[0][COST] = took
        return records


def _encode(tokenizer, prompts: Sequence[Prompt]) -> Iterator[_Item]:
    choices = {choice for p in prompts if p.apart for choice in p.choices}
    trained = {choice: tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in choices}
    encoded = encode(tokenizer, [prompt.text for prompt in prompts])
    endings = encode(tokenizer, [text for p in prompts if not p.apart for text in _with_choices(p, p.text[-ENDING:])])
    for prompt, alone in zip(prompts, encoded, strict=True):
        if prompt.apart:
            k, tails = len(alone), [trained[choice] for choice in prompt.choices]
        else:
            k, tails = _split(alone, *islice(endings, 1 + len(prompt.choices)))
            if k is None:
                k, tails = _split(alone, *encode(tokenizer, _with_choices(prompt, prompt.text)))
        if k == 0 or not all(tails) or len(set(map(tuple, tails))) < len(tails):
            raise ValueError(f"the choices {prompt.choices} of {prompt.item_id} cannot be told apart by their tokens")
        yield _Item(array("i", alone[:k]), tails)


def _with_choices(prompt: Prompt, text: str) -> list[str]:
    return [text, *(text + choice for choice in prompt.choices)]


def _split(alone: list[int], ending: list[int], *with_choices: list[int]) -> tuple[int | None, list[list[int]]]:
    """Return k and the tokens of each choice after it, from the tokens of a prompt, its ending, and ending + choice.

    The ending's first tokens may differ from the prompt's because it is cut there. k is None unless both agree on
    `AGREED` tokens before the first that a choice changes. A prompt that is its own ending always agrees.
    """
    same = min(_common(ending, ids) for ids in with_choices)
    agreed = len(ending) if alone == ending else _common(alone[::-1], ending[::-1])
    cut = len(ending) - agreed
    if cut and same < cut + AGREED:
        return None, []
    return len(alone) - len(ending) + same, [ids[same:] for ids in with_choices]


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the longest common prefix."""
    if second[: len(first)] == first:  # the usual case, and much faster than counting
        return len(first)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _shares_prefixes(model) -> bool:
    """Whether items with a common beginning are batched together to compute it once."""
    return model.device.type == "cuda"


@torch.no_grad()
def _score_batch(model, items: Sequence[_Item]) -> tuple[list[list[float]], dict]:
    """Return the scores of every choice of every item, and the cost. Equal stems (sequences without their last token)
    share a row.
    """
    began = batching.seconds(model.device)
    stems: dict[tuple[int, ...], int] = {}
    kept = max(len(tail) for item in items for tail in item.tails)
    wanted = []  # (stem, place among its last `kept`, token) of each choice's tokens
    for item in items:
        own: dict[tuple[int, ...], int] = {}  # a prompt of thousands of tokens is hashed once for all letters
        for tail in item.tails:
            if (start := tuple(tail[:-1])) not in own:
                own[start] = stems.setdefault((*item.prefix, *start), len(stems))
            stem = own[start]
            wanted.append([(stem, place, token) for place, token in enumerate(tail, start=kept - len(tail))])
    values = iter(_logprobs(model, list(stems), [each for choice in wanted for each in choice], kept=kept))
    scores = iter([sum(next(values) for _ in choice) for choice in wanted])
    found = [[next(scores) for _ in item.tails] for item in items]
    return found, batching.cost(
        prompt_tokens=sum(map(len, stems)), prefill_seconds=batching.seconds(model.device) - began
    )


def _logprobs(
    model, stems: Sequence[tuple[int, ...]], wanted: Sequence[tuple[int, int, int]], *, kept: int
) -> list[float]:
    """Return float32 log-probabilities of next tokens, given as (stem, position in its last ``kept``, token)."""
    common = min(_common(min(stems), max(stems)), min(map(len, stems)) - kept) if _shares_prefixes(model) else 0
    window = getattr(model.config, "sliding_window", None)
    # Padding lies after the common beginning: positions ignore it, but a sliding window would count it.
    if common < SHARED_TOKENS or (window is not None and window < max(map(len, stems))):
        common = 0
    beginning = DynamicCache()
    if common:
        ids = torch.tensor([stems[0][:common]], device=model.device)
        model(input_ids=ids, past_key_values=beginning, use_cache=True, logits_to_keep=1)
    most = batching.shared_rows(model, length=max(map(len, stems))) if common else len(stems)
    by_stem = defaultdict(list)
    for number, (stem, _, _) in enumerate(wanted):
        by_stem[stem].append(number)
    found, first = [0.0] * len(wanted), 0
    for some in batching.passes([stem[common:] for stem in stems], model.device, most=most):
        ids, mask, positions = batching.left_padded(some, model.device)
        cached = {}
        if common:
            cached["past_key_values"] = copy.deepcopy(beginning)
            cached["past_key_values"].batch_repeat_interleave(len(some))
            mask = torch.cat([mask.new_ones(len(some), common), mask], dim=1)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions + common, use_cache=bool(common),
            logits_to_keep=kept, **cached,
        ).logits  # fmt: skip
        here = [number for stem in range(first, first + len(some)) for number in by_stem[stem]]
        where = torch.tensor([(wanted[n][0] - first, *wanted[n][1:]) for n in here], device=model.device)
        values = logits.float().log_softmax(-1)[tuple(where.unbind(-1))]  # gather before the transfer from the device
        for number, value in zip(here, values.tolist(), strict=True):
            found[number] = value
        first += len(some)
    return found
