"""Amount of text a cell trains on and number of items it is evaluated on, without downloading its data."""

import functools
from dataclasses import dataclass
from pathlib import Path

from reproduction.cells.cell import Cell
from reproduction.cells.sizes import shape_of
from reproduction.data.catalogue import CHARACTERS_A_TOKEN, DATASETS
from reproduction.data.examples import to_examples
from reproduction.data.mixture import shares_of
from reproduction.data.sources import load_rows
from reproduction.data.templates import Template
from reproduction.evals.task import Protocol


@dataclass(frozen=True)
class Text:
    """Size of a training set: rows, and total characters of prompts and responses."""

    rows: int
    characters: float


def text_of(cell: Cell) -> Text:
    """Return the size of the cell's training set: counted in a data folder, else the known size of the hub's."""
    counted = {name: _text(name, cell) for name in cell.data.sources}
    shares = shares_of(_parts(cell), {name: count for name, (count, _) in counted.items()})
    rows = sum(share * counted[name][0] for name, share in shares.items())
    characters = sum(share * counted[name][0] * counted[name][1] for name, share in shares.items())
    free = rows * (1 - cell.data.held_out) - cell.data.validation_rows
    left = min(free, cell.data.limit or rows)
    return Text(round(left), characters * left / rows)


def tokens_of(cell: Cell) -> float:
    """Return prompt and response tokens of one epoch, from the characters of the cell's training set."""
    rows = {name: DATASETS[name].rows["train"] for name in cell.data.sources}
    kind = (shape_of(cell.model).shape or {}).get("model_type", "llama")
    by_source = CHARACTERS_A_TOKEN.get(kind, CHARACTERS_A_TOKEN["llama"])
    characters = {
        name: share * rows[name] * DATASETS[name].characters for name, share in shares_of(_parts(cell), rows).items()
    }
    tokens = sum(count / by_source[name] for name, count in characters.items())
    return text_of(cell).characters * tokens / sum(characters.values())


def items_of(cell: Cell, protocol: Protocol) -> int:
    """Return the number of items of a protocol's benchmark that the cell is evaluated on."""
    count = protocol.task.published_rows if cell.data_root is None else _items(protocol, cell.data_root)
    return count if protocol.limit is None else min(protocol.limit, count)


def _parts(cell: Cell) -> dict[str, float]:
    return cell.data.parts or {cell.data.name: 1.0}


def _text(name: str, cell: Cell) -> tuple[int, float]:
    """Return the rows of one of the cell's training sets and the mean characters per row."""
    if cell.data_root:
        return _counted(name, cell.data_root, cell.data.prompt_template)
    return DATASETS[name].rows["train"], DATASETS[name].characters


@functools.cache
def _counted(name: str, root: Path, template: Template) -> tuple[int, float]:
    examples = to_examples(name, load_rows(name, "train", root=root), template=template)
    return len(examples), sum(len(each.prompt) + len(each.response) for each in examples) / len(examples)


@functools.cache
def _items(protocol: Protocol, root: Path) -> int:
    return len(protocol.task.rows(root=root))
