"""Rows to prompt-response pairs."""

from dataclasses import dataclass

from idlora.data.catalogue import DATASETS, DataError
from idlora.data.templates import ALPACA, Template


@dataclass(frozen=True)
class Example:
    """One training text: `prompt` as a model is asked, `response` as it should answer (without the end mark)."""

    id: str
    prompt: str
    response: str


def to_examples(name: str, rows: list[dict], *, template: Template = ALPACA) -> list[Example]:
    """Prompt and response of each row of a training set, in order.

    GSM8K keeps its calculator marks `<<a+b=c>>` and its last line `#### n`: the answer is scored by that line.

    Raises:
        DataError: a row without an instruction.
        ValueError: the template refuses a row.
    """
    if not rows:
        return []
    instruction, input, output = DATASETS[name].training
    examples = []
    for row in rows:
        if not row[instruction].strip():
            raise DataError(f"Row {row['id']} of {name} has an empty {instruction}: remove the row.")
        prompt = template.render(row[instruction], row[input] if input else "")
        examples.append(Example(id=row["id"], prompt=prompt, response=row[output].strip()))
    return examples
