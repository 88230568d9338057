"""Prompt-response pairs from rows of training sets."""

from collections.abc import Sequence
from dataclasses import dataclass

from reproduction.data.catalogue import DATASETS, DataError
from reproduction.data.splits import Instruction
from reproduction.data.templates import ALPACA, Template


@dataclass(frozen=True)
class Example:
    """One training example: prompt and response (without the end token)."""

    id: str
    prompt: str
    response: str


def instruction_of(name: str, row: dict) -> Instruction:
    """Return a training row's instruction and input, stripped."""
    instruction, input, _ = DATASETS[name].training
    return row[instruction].strip(), row[input].strip() if input else ""


def response_of(name: str, row: dict) -> str:
    """Return a training row's response, stripped.

    GSM8K keeps its calculator marks `<<a+b=c>>` and its last line `#### n`, which the strict score needs.
    """
    return row[DATASETS[name].training[2]].strip()


def to_examples(name: str, rows: Sequence[dict], *, template: Template = ALPACA) -> list[Example]:
    """Return prompt and response of each row of a training set, in order.

    Raises DataError for a row without an instruction, and ValueError if the template fails on a row.
    """
    examples = []
    for row in rows:
        instruction, input = instruction_of(name, row)
        if not instruction:
            raise DataError(f"Row {row['id']} of {name} has an empty {DATASETS[name].training[0]}: remove the row.")
        examples.append(Example(row["id"], template.render(instruction, input), response_of(name, row)))
    return examples


def mixture_examples(rows: Sequence[dict], *, template: Template = ALPACA) -> list[Example]:
    """Return prompt and response of rows from `load_mixture`, in order, see `to_examples`."""
    return [example for row in rows for example in to_examples(row["part"], [row], template=template)]
