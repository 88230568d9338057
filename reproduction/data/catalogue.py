"""`DatasetSpec`, and the training sets. A benchmark's data set is in `reproduction.evals.tasks.<name>`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INSTRUCTION_COLUMNS = ("instruction", "input", "output")
NEWEST = "main"
SAFETY_ALONE = "safety_only"  # prefix of the file with only Saferpaca's safety rows


class DataError(ValueError):
    """A data set is missing, unreadable or not as expected."""


@dataclass(frozen=True)
class DatasetSpec:
    """Location and format of a data set.

    Args:
        name: folder under the data root, and name in every config.
        columns: columns of a row besides "id"; all text, unless `convert` is given.
        splits: our name of each split → the hub's.
        hub_id: hub repository; None if it is not on the hub.
        hub_config: the repository's configuration.
        hub_files: files of the repository that `read` parses, without `datasets`.
        url: address of the file, containing {revision}, if it is on the web but not on the hub.
        sizes: allowed row counts of the hub's copy; empty for any.
        rows: split → number of rows according to the hub's card, for time estimates.
        characters: mean length of a training row's prompt and response, for time estimates.
        assembled_from: training sets that complete it if a local folder holds only part of it.
        akin: other training sets that share rows with it.
        training: columns of instruction, input (None for none) and response; None for a test-only set.
        file: file name, if it is neither `<split>.jsonl` nor the folder's only .json.
        folder: folder under the data root, if it differs from the name.
        gated: whether the hub requires an access request.
        read: (folder, the hub's name of the split) → raw rows, for sets in several files.
        convert: raw row, in the hub's fields → row. Rows without "id" get one from their position. KeyError, TypeError
            or ValueError mark the raw row as invalid.
        grouped_by: column whose values each have their own row numbers in ids.
        bundled: returns the raw rows if there is neither a folder nor a hub repository.
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
        """Name of the folder under a data root."""
        return self.folder or self.name

    def source(self, revision: str) -> str | None:
        """Return the hub repository, or the file's address at a revision, or None."""
        return self.hub_id if self.url is None else self.url.replace("{revision}", revision)


def revision_of(name: str, revisions: Mapping[str, str] | None) -> str:
    """Return the revision given for a data set, `NEWEST` by default."""
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
        _instructions(  # Alpaca's characters: most of its rows are Alpaca's
            "saferpaca", url=f"{_SAFER}saferpaca_Instructions_2000.json", rows={"train": 22_000}, characters=464,
            assembled_from=("alpaca_cleaned",), akin=("alpaca", "alpaca_cleaned", "safety"),
        ),
        _instructions(  # Saferpaca has 2,000 of them
            "safety", url=_SAFER + _SAFETY_FILE, rows={"train": 2_483}, characters=513, akin=("saferpaca",),
            folder="saferpaca", file=_SAFETY_FILE,
        ),
    )
}  # fmt: skip
"""The training sets by name."""

CHARACTERS_A_TOKEN = {
    "llama": {"gsm8k": 3.47, "codealpaca": 3.88, "alpaca": 4.77, "saferpaca": 4.77, "safety": 4.77},
    "mistral": {"gsm8k": 2.83, "codealpaca": 3.13, "alpaca": 4.10, "saferpaca": 4.10, "safety": 4.10},
}
"""Characters per token by model type, for time estimates: counted on 2,000 rows of each set with the tokenizers of
LLaMA-3 and Mistral-7B; Saferpaca and its safety rows use Alpaca's numbers."""
