"""Generate answers to prompts.

Tokens are sampled by inverting the distribution at a number u that depends only on the token's position:

    x_t = min { x : Σ_{y ≤ x} p(y | …) > u_t Σ_y p(y | …) },   u_t uniform in [0, 1), from (seed, item, sample, t)

over token ids x, with p zero outside the nucleus. An answer therefore does not depend on its batch beyond the rounding
of its logits, and an evaluation can resume with another batch size. transformers' `generate` offers neither this nor
the dropping of ended sequences.
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

STOP_CHECK_STEPS = 8  # steps between checks for stop strings; text after one is cut off
NUCLEUS = 512  # tokens that a nucleus seldom exceeds: top-k is much faster than sorting the vocabulary
PROMPT_TAIL = 4  # tokens of a raw prompt decoded along with its answer, so that the answer's first space survives


class Generation:
    """Scorer "generated": decode answers to prompts.

    Args:
        model: causal language model, plain or with an adapter, on one device.
        tokenizer: its tokenizer; prompts are encoded with the start token, if it has one.
        prompts: all prompts that `answer` may get.
        protocol: temperature, nucleus, length and seed.
        stops: strings that end an answer; they are cut off.

    Raises ValueError for a prompt that leaves no room for an answer in the model's context.
    """

    def __init__(self, model, tokenizer, prompts: Sequence[Prompt], *, protocol: Protocol, stops: Sequence[str]):
        self.model, self.tokenizer, self.protocol, self.stops = model, tokenizer, protocol, stops
        encoded = encode(tokenizer, [prompt.text for prompt in prompts])
        self._ids = dict(zip((prompt.item_id for prompt in prompts), encoded, strict=True))
        self.ends = _end_tokens(model, tokenizer, stops)
        # A new stop string begins at most its length in bytes before the tokens since the last check.
        self._window = STOP_CHECK_STEPS + PROMPT_TAIL + max((len(mark.encode()) for mark in stops), default=0)
        self._longest, context = max(map(len, self._ids.values())), context_of(model)
        if context and self._longest + protocol.max_new_tokens > context:
            raise ValueError(
                f"a prompt of {self._longest} tokens and max_new_tokens={protocol.max_new_tokens} exceed the model's "
                f"context of {context}: ask for fewer new tokens, or take its row out of the data"
            )

    def side_by_side(self) -> int:
        """Return the batch size that the model's device holds."""
        return answers_side_by_side(self.model, length=self._longest + self.protocol.max_new_tokens)

    def batches(self, missing: Sequence[tuple[Prompt, list[int]]], batch_size: int) -> list[Batch]:
        """Split into batches, longest prompts first, prompts × samples ≤ batch_size; samples share a prefill."""
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
        """Return the records of a batch's answers, grouped by item."""
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
    def _decoder(self):  # created at the first batch; all batches share its buffers and graphs
        return decoder(self.model, rows=self._rows, length=self._longest + self.protocol.max_new_tokens)

    def _decode(
        self, logits: torch.Tensor, keys: Sequence[tuple[Prompt, int]], heads: Sequence[list[int]]
    ) -> list[list[int]]:
        """Decode B answers from the prompts' next-token logits (B, V); return their token ids without end tokens."""
        decoding, limit = self._decoder, self.protocol.max_new_tokens
        choose = _chooser(self.protocol, keys, logits.device)
        answers: list[list[int]] = [[] for _ in keys]
        rows = list(range(len(answers)))  # the answer that each row of the batch belongs to
        places = torch.arange(len(rows), device=logits.device)  # the same on the device of the logits
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
        """Decode each answer after its `head`, the last tokens of its prompt (may be empty)."""

        def decode(ids):
            return self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

        before = decode(heads) if any(heads) else [""] * len(heads)
        whole = decode([head + tokens for head, tokens in zip(heads, answers, strict=True)])
        return [text[len(head) :] for head, text in zip(before, whole, strict=True)]

    def _stopped(self, heads: Sequence[list[int]], answers: Sequence[list[int]]) -> list[bool]:
        """Whether each answer has a stop string: first search its end, then confirm in the whole text."""
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
    """Return a function (logits (B', V), answer indices (B',), step) → tokens (B',)."""
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
    """Return the uniform numbers (count,) float64 in [0, 1) of one answer."""
    key = hashlib.sha256(f"{seed}\0{item_id}\0{sample}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key))).random(count)


def sample(logits: torch.Tensor, uniforms: torch.Tensor, *, temperature: float, top_p: float) -> torch.Tensor:
    """Sample tokens (B,) int64 from logits (B, V) by inverting the distributions at uniforms (B,) float64 in [0, 1).

    The nucleus is the smallest set of most probable tokens whose sum reaches top_p; ties go to the lowest ids.
    """
    p = (logits.float() / temperature).softmax(-1)
    if top_p < 1:
        p = _nucleus(p, top_p)
    reached = p.double().cumsum(-1)
    return torch.searchsorted(reached, uniforms[:, None] * reached[:, -1:], right=True)[:, 0]


def _nucleus(p: torch.Tensor, top_p: float) -> torch.Tensor:
    """Set probabilities (B, V) outside of the nucleus to zero."""
    vocabulary = p.shape[-1]
    for count in (min(NUCLEUS, vocabulary), vocabulary):
        falling = p.topk(count).values if count < vocabulary else p.sort(dim=-1, descending=True).values
        kept = falling.double().cumsum(-1) - falling < top_p  # the sum before a token is still below top_p
        if count == vocabulary or not kept[:, -1].any():
            break
    least = falling.masked_fill(~kept, torch.inf).amin(dim=-1, keepdim=True)
    equal, room = p == least, (kept & (falling == least)).sum(dim=-1, keepdim=True)
    return p.masked_fill(~((p > least) | (equal & (equal.cumsum(-1) <= room))), 0.0)


def _end_tokens(model, tokenizer, stops: Sequence[str]) -> set[int]:
    """Return end tokens of model and tokenizer, and special tokens in stop strings, which decoding would skip."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    configured = configured if isinstance(configured, list) else [configured]
    special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    stopping = (number for token, number in special if any(token in stop for stop in stops))
    return {token for token in (*configured, tokenizer.eos_token_id, *stopping) if token is not None}
