"""What a data set is, and the training sets; a benchmark's set stands in `reproduction.evals.tasks.<name>`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INSTRUCTION_COLUMNS = ("instruction", "input", "output")
NEWEST = "main"
SAFETY_ALONE = "safety_only"  # how the file begins that has Saferpaca's safety rows without the others


class DataError(ValueError):
    """A data set that is missing, unreadable or not as expected."""


@dataclass(frozen=True)
class DatasetSpec:
    """Where a data set lives and what it holds.

    Args:
        name: its folder under the data root, and its name in every config.
        columns: what a row has beside its "id"; all text, unless `convert` says otherwise.
        splits: our name of each split → the hub's.
        hub_id: hub repository; None where no hub has it.
        hub_config: the repository's configuration.
        hub_files: files of the repository that `read` reads as they are, without `datasets`.
        url: address of the file, with {revision} in it, where it is on the web and on no hub.
        sizes: row counts that the hub's copy may have; empty for any.
        rows: split → number of rows by the hub's card, for estimates of time.
        characters: mean length of a training row's prompt and response, for estimates of time.
        assembled_from: training sets that complete it where a local folder holds a part of it alone.
        akin: other training sets that share rows with it.
        training: columns of instruction, input (None for none) and response; None for a set to test with alone.
        file: name of its file, where that is neither `<split>.jsonl` nor the folder's only .json.
        folder: its folder under the data root, where that is not its name.
        gated: whether the hub gives it only to those who asked for access.
        read: (folder, the hub's name of the split) → raw rows, where they are in several files.
        convert: raw row, in the hub's fields → row. A row without "id" gets its place as one. A KeyError, TypeError or
            ValueError says that the raw row is not as it should be.
        grouped_by: column within whose values the places of rows are counted.
        bundled: gives the raw rows where there is neither a folder nor a hub for them.
    """

    name: str
    columns: tuple[str, ...]
    splits: dict[str, str]
    hub_id: str | None = None
    hub_config: str | None = None
    hub_files: tuple[str, ...] = ()
    url: str | None = None
    sizes: tuple[int, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    characters: int = 500
    assembled_from: tuple[str, ...] = ()
    akin: tuple[str, ...] = ()
    training: tuple[str, str | None, str] | None = None
    file: str | None = None
    folder: str | None = None
    gated: bool = False
    read: Callable[[Path, str], list] | None = None
    convert: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    grouped_by: str | None = None
    bundled: Callable[[], list[dict[str, Any]]] | None = None

    @property
    def home(self) -> str:
        """The name of its folder under a data root."""
        return self.folder or self.name

    def source(self, revision: str) -> str | None:
        """The hub's repository, or the address of the file at a revision; None where neither has it."""
        return self.hub_id if self.url is None else self.url.replace("{revision}", revision)


def revision_of(name: str, revisions: Mapping[str, str] | None) -> str:
    """The revision of a data set among those given by name; `NEWEST` where it is not among them."""
    return (revisions or {}).get(name, NEWEST)


def _instructions(name: str, **rest: Any) -> DatasetSpec:
    return DatasetSpec(name, INSTRUCTION_COLUMNS, {"train": "train"}, training=INSTRUCTION_COLUMNS, **rest)


_SAFER = "https://raw.githubusercontent.com/vinid/safety-tuned-llamas/{revision}/data/training/"
_SAFETY_FILE = f"{SAFETY_ALONE}_data_Instructions.json"

DATASETS = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            "gsm8k", ("question", "answer"), {"train": "train", "test": "test"}, "openai/gsm8k", hub_config="main",
            rows={"train": 7_473, "test": 1_319}, characters=619, training=("question", None, "answer"),
        ),
        _instructions("codealpaca", hub_id="sahil2801/CodeAlpaca-20k", rows={"train": 20_022}, characters=405),
        _instructions(
            "alpaca", hub_id="tatsu-lab/alpaca", rows={"train": 52_002}, characters=464,
            akin=("alpaca_cleaned", "saferpaca"),
        ),
        _instructions("alpaca_cleaned", hub_id="yahma/alpaca-cleaned", akin=("alpaca", "saferpaca")),
        _instructions(  # characters: most of its rows are Alpaca's
            "saferpaca", url=f"{_SAFER}saferpaca_Instructions_2000.json", rows={"train": 22_000}, characters=464,
            assembled_from=("alpaca_cleaned",), akin=("alpaca", "alpaca_cleaned", "safety"),
        ),
        _instructions(  # of which Saferpaca has 2,000
            "safety", url=_SAFER + _SAFETY_FILE, rows={"train": 2_483}, characters=513, akin=("saferpaca",),
            folder="saferpaca", file=_SAFETY_FILE,
        ),
    )
}  # fmt: skip
"""The sets that a model can be trained on."""

CHARACTERS_A_TOKEN = {
    "llama": {"gsm8k": 3.47, "codealpaca": 3.88, "alpaca": 4.77, "saferpaca": 4.77, "safety": 4.77},
    "mistral": {"gsm8k": 2.83, "codealpaca": 3.13, "alpaca": 4.10, "saferpaca": 4.10, "safety": 4.10},
}
"""By a model's type, for estimates of time: counted on 2,000 rows of each set with LLaMA-3's and Mistral-7B's
tokenizers; Saferpaca and its safety rows have Alpaca's numbers."""
