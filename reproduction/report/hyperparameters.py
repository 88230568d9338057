"""The paper's hyperparameters beside those of the experiments' configs: Tables 4 and 5."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.records import write_text
from reproduction.report.documents import booktabs, document, pipes, write_csv

SAME, DIFFERS = "same", "differs"
SPELLING = {"AdamW": "adamw_torch"}
"""The paper's word for a value → the config's, if they differ."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameter:
    """One value of a config beside the paper's.

    Args:
        experiment: name in configs/experiment, at the paper's scale.
        name: in the paper's table.
        key: of the composed config.
        value: of that key.
        printed: the paper's, as text; items of a list are separated by semicolons, without the modules' "_proj".
    """

    experiment: str
    name: str
    key: str
    value: Any
    printed: str

    @property
    def agree(self) -> str:
        """`SAME` or `DIFFERS`; numbers compare by value, lists in any order."""
        if isinstance(self.value, list):
            same = {name.removesuffix("_proj") for name in self.value} == set(self.printed.split(";"))
        elif isinstance(self.value, int | float):
            same = self.value == float(self.printed)
        else:
            same = self.value == SPELLING.get(self.printed, self.printed)
        return SAME if same else DIFFERS

    @property
    def text(self) -> str:
        return ";".join(self.value) if isinstance(self.value, list) else str(self.value)


def differing(hyperparameters: Sequence[Hyperparameter]) -> list[Hyperparameter]:
    return [each for each in hyperparameters if each.agree == DIFFERS]


def summary(hyperparameters: Sequence[Hyperparameter]) -> str:
    """Summarise how many agree with the paper, and list those that differ."""
    wrong = [f"{e.experiment} {e.key}: {e.text}, printed {e.printed}" for e in differing(hyperparameters)]
    agreeing = len(hyperparameters) - len(wrong)
    return f"{agreeing} of {len(hyperparameters)} values are the paper's" + "".join(f"; {each}" for each in wrong) + "."


def write(table: str, title: str, hyperparameters: Sequence[Hyperparameter], *, folder: Path) -> list[Path]:
    """Write ``<table>.csv``, ``.md`` and ``.tex``; the last has experiments across, like the paper."""
    paths = [folder / f"{table}{ending}" for ending in (".csv", ".md", ".tex")]
    columns = ("experiment", "hyperparameter", "key", "value", "printed", "agree")
    values = [(e.experiment, e.name, e.key, e.text, e.printed, e.agree) for e in hyperparameters]
    write_csv(paths[0], columns, [dict(zip(columns, row, strict=True)) for row in values])
    headings = ["Experiment", "Hyperparameter", "config key", "config", "paper", "agree"]
    rows = [[experiment, name, f"`{key}`", *others] for experiment, name, key, *others in values]
    write_text(paths[1], document(title, summary(hyperparameters), pipes(headings, rows)))
    found = {(each.name, each.experiment): each.text for each in hyperparameters}
    names, experiments = (list(dict.fromkeys(part)) for part in zip(*found, strict=True))
    rows = [[name, *(found[name, experiment] for experiment in experiments)] for name in names]
    caption = f"{title}. {summary(hyperparameters)}"
    write_text(paths[2], booktabs(["", *experiments], rows, caption=caption, label=table))
    return paths
