"""Which data sets there are, what their rows hold, and where the hub has them. Nothing is read here."""

from collections.abc import Mapping
from dataclasses import dataclass

INSTRUCTION_COLUMNS = ("instruction", "input", "output")
QUIZ_COLUMNS = ("question", "choices", "answer")
HUMANEVAL_COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")

CATEGORIES = tuple(f"category_{number}" for number in (1, *range(3, 12)))
"""HEx-PHI's files on the hub."""

WITHDRAWN = "category_2"
"""HEx-PHI's eleventh, which its authors took back from the hub: read where a local folder has it."""

NEWEST = "main"
"""The revision of a data set for which no commit is given."""


class DataError(ValueError):
    """A data set that is missing, unreadable or not as expected. One sentence: where, what, and the way out."""


@dataclass(frozen=True)
class DatasetSpec:
    """Where a data set lives and what it holds.

    Attributes:
        name: its folder under the data root, and its name in every config.
        columns: what a row has beside its id; all text, but for the list of a question's choices.
        splits: ours, each with the hub's name for it.
        hub_id: hub repository; None where no hub has it.
        hub_config: the repository's configuration.
        hub_files: files of the repository to read by themselves, each with what it is called here.
        url: the file itself, {revision} in its place, where it is on the web and on no hub.
        sizes: how many rows the hub may have; empty for any number.
        shown: the split whose rows are shown as worked examples.
        assembled_from: the data sets that a part of it can be made of, in a local folder.
    """

    name: str
    columns: tuple[str, ...]
    splits: dict[str, str]
    hub_id: str | None = None
    hub_config: str | None = None
    hub_files: dict[str, str] | None = None
    url: str | None = None
    sizes: tuple[int, ...] = ()
    shown: str = "train"
    assembled_from: tuple[str, ...] = ()

    def source(self, revision: str) -> str | None:
        """The hub's repository, or the address of the file at a revision; None where neither has it."""
        return self.hub_id if self.url is None else self.url.replace("{revision}", revision)


_TRAIN = {"train": "train"}
_TEST = {"test": "test"}

DATASETS = {
    spec.name: spec
    for spec in (
        DatasetSpec("gsm8k", ("question", "answer"), _TRAIN | _TEST, "openai/gsm8k", hub_config="main"),
        DatasetSpec("codealpaca", INSTRUCTION_COLUMNS, _TRAIN, "sahil2801/CodeAlpaca-20k"),
        DatasetSpec("alpaca", INSTRUCTION_COLUMNS, _TRAIN, "tatsu-lab/alpaca"),
        DatasetSpec("alpaca_cleaned", INSTRUCTION_COLUMNS, _TRAIN, "yahma/alpaca-cleaned"),
        DatasetSpec(
            "saferpaca",
            INSTRUCTION_COLUMNS,
            _TRAIN,
            url="https://raw.githubusercontent.com/vinid/safety-tuned-llamas/{revision}/data/training/"
            "saferpaca_Instructions_2000.json",
            assembled_from=("alpaca_cleaned",),
        ),
        DatasetSpec(
            "mmlu", (*QUIZ_COLUMNS, "subject"), {"dev": "dev"} | _TEST, "cais/mmlu", hub_config="all", shown="dev"
        ),
        # The hub's test split has no answers.
        DatasetSpec("commonsenseqa", QUIZ_COLUMNS, _TRAIN | {"test": "validation"}, "tau/commonsense_qa"),
        DatasetSpec("humaneval", HUMANEVAL_COLUMNS, _TEST, "openai/openai_humaneval"),
        DatasetSpec(
            "hexphi",
            ("prompt",),
            _TEST,
            "LLM-Tuning-Safety/HEx-PHI",
            hub_files={category: f"{category}.csv" for category in CATEGORIES},
            sizes=(300, 330),  # thirty prompts a category, of ten or of eleven
        ),
        DatasetSpec("hexphi_benign", ("prompt",), _TEST),
    )
}


def revision_of(name: str, revisions: Mapping[str, str] | None) -> str:
    """The revision of a data set among those given by name; `NEWEST` where it is not among them."""
    return (revisions or {}).get(name, NEWEST)
