"""Lengths of a data set's examples in tokens, and the effect of a length limit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reproduction.data.examples import Example
from reproduction.data.tokenization import encode_prompts


class Lengths(NamedTuple):
    """Statistics of tokens per example (prompt, response and end token), over rows with a response.

    ``cut``: rows whose response does not fit completely; ``dropped``: rows whose prompt leaves no room for a response;
    ``long_answers``: rows whose response exceeds the length limit of an evaluation's answer.
    """

    rows: int
    median: int
    most: int
    cut: int
    dropped: int
    long_answers: int


def measure(examples: Sequence[Example], tokenizer, *, max_length: int, max_new_tokens: int) -> Lengths:
    """Compute the lengths like `reproduction.data.tokenize`; at least one example needs a response."""
    answered = [example for example in examples if example.response]
    prompts = np.array([len(ids) for ids in encode_prompts(tokenizer, [each.prompt for each in answered])])
    texts = [each.response for each in answered]
    responses = np.array([len(ids) + 1 for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]])
    whole = prompts + responses
    return Lengths(
        rows=len(answered),
        median=int(np.median(whole)),
        most=int(whole.max()),
        cut=int(((whole > max_length) & (prompts < max_length)).sum()),
        dropped=int((prompts >= max_length).sum()),
        long_answers=int((responses > max_new_tokens).sum()),
    )


def markdown(found: Mapping[tuple[str, str], Lengths], *, max_length: int, max_new_tokens: int) -> Iterator[str]:
    """Yield the lines of a Markdown table of (data set, tokenizer) → lengths."""
    limits = f"cut at {max_length} | left out | answers over {max_new_tokens}"
    yield f"| Data | Tokenizer | rows | median | longest | {limits} |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for (data, tokenizer), each in found.items():
        yield (
            f"| {data} | {tokenizer} | {each.rows:,} | {each.median} | {each.most:,} | "
            f"{each.cut:,} ({100 * each.cut / each.rows:.2f} %) | {each.dropped:,} | {each.long_answers:,} |"
        )
