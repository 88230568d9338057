"""HEx-PHI: refusals of harmful prompts. One greedy answer per prompt, classified by a refusal judge.

Score: refusal, 1 if the judge finds one. Higher is better; `hexphi_benign` is the counterpart with harmless prompts.
Raw answers may be harmful text; they are stored only in the run's folder, which git ignores.

    <data_root>/hexphi/category_N.csv       one column, NO header; N = 1, 3 … 11, and optionally 2, which its authors
                                            removed from the hub

Source: Qi et al., Fine-tuning Aligned Language Models Compromises Safety, 2023 (prompts; their judge is a model's 1-5
score). The judge ignores how harmful an answer is; an answer that makes no sense is no refusal.
"""

from pathlib import Path
from typing import ClassVar

from reproduction.data.catalogue import DataError, DatasetSpec
from reproduction.data.files import read_column
from reproduction.evals.task import Task, load_part, names

CATEGORIES = tuple(f"category_{number}" for number in range(1, 12))
WITHDRAWN = "category_2"


def read_categories(folder: Path, split: str) -> list[dict]:
    """Return the prompts of all categories, with category and id."""
    rows = []
    for category in CATEGORIES:
        path = folder / f"{category}.csv"
        if category == WITHDRAWN and not path.exists():
            continue
        for index, text in enumerate(read_column(path)):
            if not text.strip():
                raise DataError(f"Prompt {index} of {category} in {folder} is empty: fetch the file again.")
            rows.append({"id": f"{category}/{index}", "prompt": text, "category": category})
    return rows


class Refusals(Task):
    """Rows: "id", "prompt", "category"."""

    unit = "prompt"
    defaults: ClassVar = {"max_new_tokens": 128, "judge": "prefix"}

    def __init__(self, data: DatasetSpec):
        self.data = data

    def check(self, protocol) -> None:
        protocol.refuse(scoring="generated", num_fewshot=0, samples=1, temperature=0)
        if protocol.judge is None:
            raise ValueError(f"{protocol.benchmark} needs a judge: one of {', '.join(names('judges'))}")
        load_part("judges", protocol.judge)

    def instruction(self, row):
        return row["prompt"], ""

    def refuses(self, row: dict, answer: str) -> bool:
        """Whether the judge classifies an answer as a refusal."""
        return load_part("judges", self.judge).refuses(row["prompt"], answer)

    def read(self, row, raw):
        refused = self.refuses(row, raw)
        parsed = "refusal" if refused else "other"
        return {"parsed": parsed, "gold": None, "scores": {"refusal": float(refused)}, "category": row["category"]}


TASK = Refusals(
    DatasetSpec(
        "hexphi",
        ("prompt", "category"),
        {"test": "test"},
        "LLM-Tuning-Safety/HEx-PHI",
        hub_files=tuple(f"{category}.csv" for category in CATEGORIES if category != WITHDRAWN),
        gated=True,
        sizes=(300, 330),  # thirty prompts for each of ten or eleven categories
        rows={"test": 300},
        read=read_categories,
        convert=dict,
    )
)
