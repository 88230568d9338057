"""Rows to prompt-response pairs."""

from dataclasses import dataclass

from idlora.data.catalogue import INSTRUCTION_COLUMNS, DataError
from idlora.data.templates import render


@dataclass(frozen=True)
class Example:
    """One training text: `prompt` as a model is asked, `response` as it should answer (without the end mark)."""

    id: str
    prompt: str
    response: str


def to_examples(name: str, rows: list[dict]) -> list[Example]:
    """Prompt and response of each row of a training set, in order.

    GSM8K keeps its calculator marks `<<a+b=c>>` and its last line `#### n`: the answer is scored by that line.

    Raises:
        DataError: a data set to test with only, or a row without an instruction.
    """
    if not rows:
        return []
    if set(INSTRUCTION_COLUMNS) <= rows[0].keys():
        instruction, input, output = INSTRUCTION_COLUMNS
    elif name == "gsm8k":
        instruction, input, output = "question", None, "answer"
    else:
        raise DataError(f"Data set {name!r} is for evaluation: train on gsm8k, codealpaca, alpaca or saferpaca.")
    examples = []
    for row in rows:
        if not row[instruction].strip():
            raise DataError(f"Row {row['id']} of {name} has an empty {instruction}: remove the row.")
        prompt = render(row[instruction], row[input] if input else "")
        examples.append(Example(id=row["id"], prompt=prompt, response=row[output].strip()))
    return examples
