"""Answers to prompts: the one place where a model is decoded.

A sampled token is the inverse of the distribution at a number u that the token's place alone decides:

    x_t = min { x : Σ_{y ≤ x} p(y | …) > u_t Σ_y p(y | …) },   u_t uniform in [0, 1), of (seed, item, sample, t)

over token ids x, p zero outside the nucleus. So which batch an answer fell into does not matter beyond the rounding of
its logits, and an evaluation can be taken up with another batch size.

The loop is ours rather than transformers' `generate` for that, and because it drops the sequences that have ended.
"""

import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch

from reproduction.evals.answers import COST
from reproduction.evals.batching import Batch, answers_side_by_side, context_of, cost, encode, longest_first, seconds
from reproduction.evals.decoding import decoder
from reproduction.evals.items import Prompt
from reproduction.evals.task import Protocol

STOP_CHECK_STEPS = 8  # steps between two looks for stop strings; what was decoded beyond one is cut off
NUCLEUS = 512  # tokens that a nucleus seldom exceeds: to find them takes a fraction of sorting a vocabulary
PROMPT_TAIL = 4  # tokens of a raw prompt decoded along with its answer, so that the answer's first space survives


class Generation:
    """Decodes answers to some prompts.

    Args:
        model: causal language model, plain or with an adapter, on any one device.
        tokenizer: its tokenizer; prompts are encoded with the start token, if it has one.
        prompts: all that may be asked.
        protocol: temperature, nucleus, length and seed.
        stops: an answer ends before the first of these strings.

    Raises ValueError for a prompt that leaves no room for an answer in the model's context.
    """

    def __init__(self, model, tokenizer, prompts: Sequence[Prompt], *, protocol: Protocol, stops: Sequence[str]):
        self.model, self.tokenizer, self.protocol, self.stops = model, tokenizer, protocol, stops
        encoded = encode(tokenizer, [prompt.text for prompt in prompts])
        self._ids = dict(zip((prompt.item_id for prompt in prompts), encoded, strict=True))
        self.ends = _end_tokens(model, tokenizer, stops)
        # A stop string that was not there at the last look begins at most its bytes before what is new since then.
        self._window = STOP_CHECK_STEPS + PROMPT_TAIL + max((len(mark.encode()) for mark in stops), default=0)
        self._longest, context = max(map(len, self._ids.values())), context_of(model)
        if context and self._longest + protocol.max_new_tokens > context:
            raise ValueError(
                f"a prompt of {self._longest} tokens and max_new_tokens={protocol.max_new_tokens} exceed the model's "
                f"context of {context}: ask for fewer new tokens, or take its row out of the data"
            )

    def side_by_side(self) -> int:
        """Sequences to ask together on the model's device."""
        return answers_side_by_side(self.model, length=self._longest + self.protocol.max_new_tokens)

    def batches(self, missing: Sequence[tuple[Prompt, list[int]]], batch_size: int) -> list[Batch]:
        """Longest prompts first; prompts × samples ≤ batch_size, and an item's samples share its prefill."""
        samples_of = {prompt.item_id: samples for prompt, samples in missing}
        alike: dict[tuple[int, ...], list[Prompt]] = defaultdict(list)
        for prompt in longest_first([prompt for prompt, _ in missing], lambda prompt: len(self._ids[prompt.item_id])):
            samples = samples_of[prompt.item_id]
            for start in range(0, len(samples), batch_size):
                alike[tuple(samples[start : start + batch_size])].append(prompt)
        batches = []
        for samples, prompts in alike.items():
            size = batch_size // len(samples)
            batches += [(prompts[start : start + size], list(samples)) for start in range(0, len(prompts), size)]
        self._rows = max((len(prompts) * len(samples) for prompts, samples in batches), default=0)
        return batches

    def answer(self, batch: Batch) -> list[dict]:
        """The records of a batch's answers, an item's samples together."""
        keys = [(prompt, sample) for prompt in batch[0] for sample in batch[1]]
        ids = [self._ids[prompt.item_id] for prompt in batch[0]]
        began = seconds(self.model.device)
        logits = self._decoder.begin(ids, samples=len(batch[1]))
        read = seconds(self.model.device)
        heads = [[] if prompt.apart else self._ids[prompt.item_id][-PROMPT_TAIL:] for prompt, _ in keys]
        answers = self._decode(logits, keys, heads)
        records = [
            {
                "item_id": prompt.item_id,
                "prompt_hash": prompt.prompt_hash,
                "sample": sample,
                "raw": self._cut(text),
                "prompt_tokens": len(self._ids[prompt.item_id]),
                "tokens": len(tokens),
            }
            for (prompt, sample), tokens, text in zip(keys, answers, self._texts(heads, answers), strict=True)
        ]
        records[0][COST] = cost(
            prompt_tokens=sum(map(len, ids)),
            generated_tokens=sum(map(len, answers)),
            prefill_seconds=read - began,
            decode_seconds=seconds(self.model.device) - read,
        )
        return records

    @functools.cached_property
    def _decoder(self):  # made for the first batch: buffers and graphs serve them all
        return decoder(self.model, rows=self._rows, length=self._longest + self.protocol.max_new_tokens)

    def _decode(
        self, logits: torch.Tensor, keys: Sequence[tuple[Prompt, int]], heads: Sequence[list[int]]
    ) -> list[list[int]]:
        """Token ids of each of B answers, without the end token, from the logits (B, V) of what follows the prompts."""
        decoding, limit = self._decoder, self.protocol.max_new_tokens
        choose = _chooser(self.protocol, keys, logits.device)
        answers: list[list[int]] = [[] for _ in keys]
        rows = list(range(len(answers)))  # the answer that each row of the batch belongs to
        places = torch.arange(len(rows), device=logits.device)  # the same, where the logits are
        live = [True] * len(rows)
        unread: list[torch.Tensor] = []
        for step in range(limit):
            tokens = choose(logits, places, step)
            unread.append(tokens)
            if (step + 1) % decoding.look_every and step + 1 < limit:
                logits = decoding.step(tokens)
                continue
            new, unread = torch.stack(unread, dim=1).tolist(), []
            for i, row in enumerate(rows):
                if live[i]:
                    end = next((at for at, token in enumerate(new[i]) if token in self.ends), None)
                    answers[row] += new[i][:end]
                    live[i] = end is None
            if self.stops and any(live) and (step + 1) % STOP_CHECK_STEPS == 0:
                alive = [i for i, alive in enumerate(live) if alive]
                found = self._stopped([heads[rows[i]] for i in alive], [answers[rows[i]] for i in alive])
                for i, stopped in zip(alive, found, strict=True):
                    live[i] = not stopped
            if step + 1 == limit or not any(live):
                break
            if decoding.saves(live.count(True)):
                kept = torch.tensor([i for i, alive in enumerate(live) if alive], device=logits.device)
                decoding.keep(kept)
                tokens, places = tokens[kept], places[kept]
                rows = [row for row, alive in zip(rows, live, strict=True) if alive]
                live = [True] * len(rows)
            logits = decoding.step(tokens)
        return answers

    def _texts(self, heads: Sequence[list[int]], answers: Sequence[list[int]]) -> list[str]:
        """What each answer adds to the end of its prompt, or says by itself where that end is empty."""

        def decode(ids):
            return self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

        before = decode(heads) if any(heads) else [""] * len(heads)
        whole = decode([head + tokens for head, tokens in zip(heads, answers, strict=True)])
        return [text[len(head) :] for head, text in zip(before, whole, strict=True)]

    def _stopped(self, heads: Sequence[list[int]], answers: Sequence[list[int]]) -> list[bool]:
        """Whether each answer holds a stop string: looked for at its end, and confirmed in the whole."""
        ends = self._texts([[]] * len(answers), [tokens[-self._window :] for tokens in answers])
        doubtful = [row for row, text in enumerate(ends) if self._has_stop(text)]
        if not doubtful:
            return [False] * len(answers)
        whole = self._texts([heads[row] for row in doubtful], [answers[row] for row in doubtful])
        found = {row for row, text in zip(doubtful, whole, strict=True) if self._has_stop(text)}
        return [row in found for row in range(len(answers))]

    def _has_stop(self, text: str) -> bool:
        return any(mark in text for mark in self.stops)

    def _cut(self, text: str) -> str:
        return text[: min((text.find(mark) for mark in self.stops if mark in text), default=len(text))]


def _chooser(protocol: Protocol, keys: Sequence[tuple[Prompt, int]], device) -> Callable[..., torch.Tensor]:
    """(logits (B', V), the B' answers' numbers as a tensor, step) → tokens (B',)."""
    if protocol.temperature == 0:
        return lambda logits, rows, step: logits.argmax(-1)
    streams = [
        _uniforms(protocol.seed, prompt.item_id, number, count=protocol.max_new_tokens) for prompt, number in keys
    ]
    uniforms = torch.from_numpy(np.stack(streams)).to(device)

    def choose(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        return sample(logits, uniforms[rows, step], temperature=protocol.temperature, top_p=protocol.top_p)

    return choose


def _uniforms(seed: int, item_id: str, sample: int, *, count: int) -> np.ndarray:
    """The numbers (count,) float64 in [0, 1) of one answer, whatever stands beside it."""
    key = hashlib.sha256(f"{seed}\0{item_id}\0{sample}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key))).random(count)


def sample(logits: torch.Tensor, uniforms: torch.Tensor, *, temperature: float, top_p: float) -> torch.Tensor:
    """The tokens (B,) int64 at which the distributions of logits (B, V) reach the uniforms (B,) float64 in [0, 1).

    The nucleus is the fewest most probable tokens whose sum reaches top_p, of equally probable ones the first.
    """
    p = (logits.float() / temperature).softmax(-1)
    if top_p < 1:
        p = _nucleus(p, top_p)
    reached = p.double().cumsum(-1)
    return torch.searchsorted(reached, uniforms[:, None] * reached[:, -1:], right=True)[:, 0]


def _nucleus(p: torch.Tensor, top_p: float) -> torch.Tensor:
    """Probabilities (B, V), zero outside of the nucleus."""
    vocabulary = p.shape[-1]
    for count in (min(NUCLEUS, vocabulary), vocabulary):
        falling = p.topk(count).values if count < vocabulary else p.sort(dim=-1, descending=True).values
        kept = falling.double().cumsum(-1) - falling < top_p  # what is before a token does not reach it yet
        if count == vocabulary or not kept[:, -1].any():
            break
    least = falling.masked_fill(~kept, torch.inf).amin(dim=-1, keepdim=True)
    equal, room = p == least, (kept & (falling == least)).sum(dim=-1, keepdim=True)
    return p.masked_fill(~((p > least) | (equal & (equal.cumsum(-1) <= room))), 0.0)


def _end_tokens(model, tokenizer, stops: Sequence[str]) -> set[int]:
    """The end tokens of model and tokenizer, and special tokens of the stop strings, which no text has once decoded."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    configured = configured if isinstance(configured, list) else [configured]
    special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    stopping = (number for token, number in special if any(token in stop for stop in stops))
    return {token for token in (*configured, tokenizer.eos_token_id, *stopping) if token is not None}
