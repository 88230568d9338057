"""How long a data set's examples are in a tokenizer's tokens, and what a limit would cut of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from reproduction.data.examples import Example
from reproduction.data.tokenization import encode_prompts


@dataclass(frozen=True)
class Lengths:
    """Of one data set under one tokenizer, prompt, response and end token together.

    Attributes:
        rows: examples with a response.
        median, most: tokens.
        cut: rows whose response does not fit the limit as a whole.
        dropped: rows whose prompt leaves no room for a token of response.
        long_answers: rows whose response and end token alone are more than an evaluation's limit of new tokens.
    """

    rows: int
    median: int
    most: int
    cut: int
    dropped: int
    long_answers: int


def measure(examples: Sequence[Example], tokenizer, *, max_length: int, max_new_tokens: int) -> Lengths:
    """Lengths as `reproduction.data.tokenize` would find them, without refusing any.

    Args:
        examples: at least one with a response.
        tokenizer: a transformers tokenizer.
        max_length: most tokens of a training row.
        max_new_tokens: most tokens of an answer in an evaluation.
    """
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


def markdown(found: Mapping[tuple[str, str], Lengths], *, max_length: int, max_new_tokens: int) -> Iterable[str]:
    """A Markdown table of (data set, tokenizer) → lengths, line by line."""
    limits = f"cut at {max_length} | left out | answers over {max_new_tokens}"
    yield f"| Data | Tokenizer | rows | median | longest | {limits} |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for (data, tokenizer), lengths in found.items():
        own = asdict(lengths)
        share = f"{own['cut']:,} ({100 * lengths.cut / lengths.rows:.2f} %)"
        yield (
            f"| {data} | {tokenizer} | {lengths.rows:,} | {lengths.median} | {lengths.most:,} | {share} | "
            f"{lengths.dropped:,} | {lengths.long_answers:,} |"
        )
