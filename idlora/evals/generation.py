"""Answers to prompts: the one place where a model is decoded.

Prompts are cut into fixed batches, longest first, and each batch is recorded whole when it is done. What a batch says
depends on the protocol and the batch alone (its sampling has a seed of its own), so an interrupted evaluation goes on
with the batches that are missing and ends as it would have without the interruption.

The loop is ours rather than transformers' `generate` because it drops the sequences that have ended: answers are short,
a few run on to the limit, and there the batch should no longer cost what it did at its start. How a step is computed is
`idlora.evals.decoding`'s; sampling distribution and attention are transformers' own.

Left out: beam search, repetition penalties, speculative decoding, one model over several devices.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from idlora.evals.answers import Share
from idlora.evals.asking import ask_in_batches, context_of, encode, seconds
from idlora.evals.decoding import Decoder, decoder
from idlora.evals.items import Prompt, record
from idlora.evals.protocol import Protocol
from idlora.evals.throughput import cost

STOP_CHECK_STEPS = 8  # steps between two looks for stop strings; what was decoded beyond one is cut off
PROMPT_TAIL = 4  # tokens of the prompt decoded along with the answer, so that its first space survives


def generate(
    model,
    tokenizer,
    prompts: Sequence[Prompt],
    *,
    protocol: Protocol,
    stop: Sequence[str] = (),
    batch_size: int,
    path: Path,
    share: Share | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[str]]:
    """`protocol.samples` answers to each prompt, in the order of the prompts.

    Args:
        model: causal language model, plain or with an adapter, on any one device; left in the mode it came in.
        tokenizer: its tokenizer; prompts are encoded with the start token, if it has one.
        stop: an answer ends before the first of these strings.
        batch_size: sequences decoded together; it decides what a sampled answer is, and nothing about a greedy one.
        path: file of answers; those already there are kept, new ones are appended batch by batch.
        share: answers this part of the missing batches, beside other processes; None answers all.
        progress: called with (answers done, answers in all).

    Raises:
        ValueError: no prompts, an item id twice, or a prompt that leaves no room for an answer in the model's context.
        ShareAnswered: at the end of a share.
    """
    encoded = dict(zip((p.item_id for p in prompts), encode(tokenizer, (p.text for p in prompts)), strict=True))
    longest, context = max(map(len, encoded.values()), default=0), context_of(model)
    if context and longest + protocol.max_new_tokens > context:
        raise ValueError(
            f"a prompt of {longest} tokens and max_new_tokens={protocol.max_new_tokens} exceed the model's context of "
            f"{context}: ask for fewer new tokens, or take its row out of the data"
        )
    batches = list(_batches(prompts, encoded, samples=protocol.samples, batch_size=batch_size))

    @functools.cache  # made for the first batch that is missing: buffers and graphs serve them all
    def decoding() -> Decoder:
        rows = max(len(batch) * len(samples) for batch, samples in batches)
        return decoder(model, rows=rows, length=longest + protocol.max_new_tokens)

    def answer(number: int) -> tuple[list[dict], dict]:
        batch, samples = batches[number]
        texts, took = _answer_batch(
            decoding(),
            model,
            tokenizer,
            prompts=[encoded[p.item_id] for p in batch],
            samples=len(samples),
            protocol=protocol,
            stop=stop,
            seed=_seed(protocol.seed, batch[0].item_id, samples[0]),
        )
        keys = [(prompt, sample) for prompt in batch for sample in samples]
        return [
            record(prompt, sample, text, parsed=None, gold=None, scores={"generated": 1.0})
            for (prompt, sample), text in zip(keys, texts, strict=True)
        ], took

    log = ask_in_batches(
        model,
        prompts,
        [[(prompt, sample) for prompt in batch for sample in samples] for batch, samples in batches],
        answer=answer,
        path=path,
        share=share,
        progress=progress,
    )
    return [[log.get(p.item_id, s)["raw"] for s in range(protocol.samples)] for p in prompts]


def _batches(prompts: Sequence[Prompt], encoded: dict[str, list[int]], *, samples: int, batch_size: int):
    """(prompts, sample numbers) of each batch: prompts × samples ≤ batch_size, an item's samples share its prefill."""
    together = min(samples, batch_size)
    ordered = sorted(prompts, key=lambda p: (-len(encoded[p.item_id]), p.item_id))
    size = batch_size // together
    for first in range(0, samples, together):
        numbers = range(first, min(first + together, samples))
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size], numbers


def _seed(seed: int, item_id: str, sample: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {item_id} {sample}".encode()).digest()[:7])


def _answer_batch(
    decoding: Decoder, model, tokenizer, *, prompts, samples, protocol, stop, seed
) -> tuple[list[str], dict]:
    """Texts of len(prompts) × samples answers, an item's samples side by side, and what they took."""
    prefixes = [prompt[-PROMPT_TAIL:] for prompt in prompts for _ in range(samples)]

    def texts(rows: list[int], answers: list[list[int]]) -> list[str]:
        def decode(ids):
            return tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

        heads = decode([prefixes[row] for row in rows])
        whole = decode([prefixes[row] + answers[row] for row in rows])
        return [text[len(head) :] for head, text in zip(heads, whole, strict=True)]

    def stopped(rows: list[int], answers: list[list[int]]) -> list[bool]:
        return [any(mark in text for mark in stop) for text in texts(rows, answers)]

    began = seconds(model.device)
    logits = decoding.begin(prompts, samples=samples)
    read = seconds(model.device)
    answers = _decode(
        decoding,
        logits,
        max_new_tokens=protocol.max_new_tokens,
        choose=_chooser(protocol, seed, model.device),
        ends=_end_tokens(model, tokenizer),
        stopped=stopped if stop else None,
    )
    took = cost(
        prompt_tokens=sum(map(len, prompts)),
        generated_tokens=sum(map(len, answers)),
        prefill_seconds=read - began,
        decode_seconds=seconds(model.device) - read,
    )
    cut = []
    for text in texts(list(range(len(answers))), answers):
        found = [text.find(mark) for mark in stop if mark in text]
        cut.append(text[: min(found)] if found else text)
    return cut, took


def _decode(decoding: Decoder, logits: torch.Tensor, *, max_new_tokens, choose, ends, stopped) -> list[list[int]]:
    """Token ids of each of B answers, without the end token, from the logits (B, V) of what follows the prompts.

    choose: (B', V) logits → (B',) tokens. stopped: tells which of some rows hold a stop string.
    """
    answers: list[list[int]] = [[] for _ in range(len(logits))]
    rows = list(range(len(answers)))  # the answer that each row of the batch belongs to
    live = [True] * len(rows)
    for count in range(1, max_new_tokens + 1):
        tokens = choose(logits)
        for i, token in enumerate(tokens.tolist()):
            if live[i] and token in ends:
                live[i] = False
            elif live[i]:
                answers[rows[i]].append(token)
        if stopped and any(live) and count % STOP_CHECK_STEPS == 0:
            alive = [i for i, alive in enumerate(live) if alive]
            for i, stop in zip(alive, stopped([rows[i] for i in alive], answers), strict=True):
                live[i] = not stop
        if count == max_new_tokens or not any(live):
            break
        if decoding.saves(live.count(True)):
            kept = torch.tensor([i for i, alive in enumerate(live) if alive], device=logits.device)
            decoding.keep(kept)
            tokens = tokens[kept]
            rows = [row for row, alive in zip(rows, live, strict=True) if alive]
            live = [True] * len(rows)
        logits = decoding.step(tokens)
    return answers


def _chooser(protocol: Protocol, seed: int, device) -> Callable[[torch.Tensor], torch.Tensor]:
    if protocol.temperature == 0:
        return lambda logits: logits.argmax(-1)
    generator = torch.Generator(device).manual_seed(seed)
    shape = LogitsProcessorList([TemperatureLogitsWarper(protocol.temperature)])
    if protocol.top_p < 1:
        shape.append(TopPLogitsWarper(protocol.top_p))
    return lambda logits: torch.multinomial(shape(None, logits.float()).softmax(-1), 1, generator=generator)[:, 0]


def _end_tokens(model, tokenizer) -> set[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    configured = configured if isinstance(configured, list) else [configured]
    return {token for token in (*configured, tokenizer.eos_token_id) if token is not None}
