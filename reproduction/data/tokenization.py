"""Token ids and labels of examples.

    input_ids = [prompt ids] [response ids] eos          prompt ids include the start token, if the tokenizer adds one
    labels    = [-100 ...  ] [response ids] eos          the loss covers only the response and eos

Prompt and response are tokenized separately, so that training and generation have the same token boundary.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from reproduction.data.catalogue import DataError
from reproduction.data.examples import Example

IGNORED = -100


@dataclass(frozen=True)
class TokenizedSet:
    """Training rows, and counts of truncated and dropped examples.

    Args:
        rows: one dict per example with "input_ids" and "labels", lists of int of the same length; in a packed set one
            dict per pack, with "position_ids" too.
        ids: ids of the examples, in the order of the rows.
        truncated: number of rows with a truncated response (without end token).
        dropped_empty, dropped_long: number of examples dropped for an empty response or a long prompt.
        row_length: maximum tokens of a pack; None if every row is one example.
    """

    rows: list[dict[str, list[int]]]
    ids: list[str]
    truncated: int = 0
    dropped_empty: int = 0
    dropped_long: int = 0
    row_length: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def report(self) -> dict[str, Any]:
        """Return counts for a run's records; "sources" counts examples by id prefix up to the last "/"."""
        tokens = sum(len(row["input_ids"]) for row in self.rows)
        account = {
            "rows": len(self.rows),
            "examples": len(self.ids),
            "tokens": tokens,
            "response_tokens": sum(label != IGNORED for row in self.rows for label in row["labels"]),
            "truncated": self.truncated,
            "dropped_empty": self.dropped_empty,
            "dropped_long": self.dropped_long,
            "sources": dict(Counter(id.rpartition("/")[0] for id in self.ids if "/" in id)),
        }
        if self.row_length is not None:
            account["fill_share"] = tokens / (len(self.rows) * self.row_length)
        return account


def encode_prompts(tokenizer, texts: list[str]) -> list[list[int]]:
    """Return token ids of prompts, with one start token if the tokenizer adds one, even if a prompt spells it out as
    chat templates do.
    """
    start, found = tokenizer.bos_token_id, tokenizer(texts)["input_ids"] if texts else []
    for ids in found:
        while start is not None and ids[:2] == [start, start]:
            del ids[0]
    return found


def tokenize(examples: list[Example], tokenizer, *, max_length: int, max_cut_share: float = 0.05) -> TokenizedSet:
    """Return token ids and labels of examples, in order, without padding.

    Responses are truncated to ``max_length`` tokens of prompt, response and end token. Examples with an empty response,
    or a prompt that leaves no room for one, are dropped. Both are counted.

    Raises DataError if the tokenizer has no end token, no example is left, or more than `max_cut_share` of the examples
    have an empty response, or are truncated or dropped for their length.
    """
    if tokenizer.eos_token_id is None:
        raise DataError(f"Tokenizer {tokenizer.name_or_path!r} has no end token: set its eos_token.")
    answered = [example for example in examples if example.response]
    if not answered:
        raise DataError(f"None of the {len(examples)} examples has a response: there is nothing to train on.")
    empty = [example.id for example in examples if not example.response]
    if len(empty) > max_cut_share * len(examples):
        raise DataError(
            f"{len(empty)} of {len(examples)} examples ({len(empty) / len(examples):.1%}) have an empty response, more "
            f"than the {max_cut_share:.0%} allowed: fetch the data again, or remove those rows (first: {empty[0]})."
        )
    prompts = encode_prompts(tokenizer, [example.prompt for example in answered])
    responses = tokenizer([example.response for example in answered], add_special_tokens=False)["input_ids"]

    rows, ids, truncated, longest = [], [], 0, 0
    for example, prompt, response in zip(answered, prompts, responses, strict=True):
        whole = [*response, tokenizer.eos_token_id]
        longest = max(longest, len(prompt) + len(whole))
        if len(prompt) >= max_length:
            continue
        fitting = whole[: max_length - len(prompt)]
        truncated += len(fitting) < len(whole)
        rows.append({"input_ids": [*prompt, *fitting], "labels": [IGNORED] * len(prompt) + fitting})
        ids.append(example.id)

    dropped_long = len(answered) - len(rows)
    cut = truncated + dropped_long
    if cut > max_cut_share * len(answered):
        raise DataError(
            f"{cut} of {len(answered)} examples ({cut / len(answered):.1%}) do not fit in max_length={max_length}, "
            f"more than the {max_cut_share:.0%} allowed: raise data.max_length (the longest has {longest} tokens)."
        )
    if not rows:
        raise DataError(f"No prompt leaves room for a response in max_length={max_length}: raise data.max_length.")
    return TokenizedSet(rows, ids, truncated, len(empty), dropped_long)
