"""MMLU: questions from 57 subjects, four choices each. See `reproduction.evals.multiple_choice` for the scores.

The benchmark's score is the mean over all items; each record names its subject. Worked examples come from the
question's own subject. A `share` selects the questions with the lowest hash of text and choices, so that every copy of
the data gives the same ones.

    <data_root>/mmlu/{dev,test}/SUBJECT_{dev,test}.csv      header question,choice0…choice3,answer (0 to 3)

Source: Hendrycks et al., Measuring Massive Multitask Language Understanding, 2021.
"""

from pathlib import Path

from reproduction.data.catalogue import DatasetSpec
from reproduction.data.files import read_table
from reproduction.data.splits import place
from reproduction.evals.multiple_choice import MultipleChoice, question


def _read(folder: Path, split: str) -> list[dict]:
    """Read the files of one split into rows with the hub's fields, subjects in alphabetical order."""
    rows, end = [], f"_{split}.csv"
    for path in sorted((folder / split).glob(f"*{end}")):
        for row in read_table(path):
            choices = [row[column] for column in row if column is not None and column.startswith("choice")]
            rows.append({**row, "subject": path.name.removesuffix(end), "choices": choices})
    return rows


def _convert(raw: dict) -> dict:
    return question(raw["question"], list(raw["choices"]), int(raw["answer"]), subject=raw["subject"])


class Mmlu(MultipleChoice):
    data = DatasetSpec(
        "mmlu",
        ("question", "choices", "answer", "subject"),
        {"dev": "dev", "test": "test"},
        "cais/mmlu",
        hub_config="all",
        rows={"test": 14_042},
        read=_read,
        convert=_convert,
        grouped_by="subject",
    )
    shown = "dev"
    shared = True

    def rows(self, *, root, revisions=None):
        rows = super().rows(root=root, revisions=revisions)
        if self.share is None:
            return rows
        return [row for row in rows if place((row["question"], "\n".join(row["choices"])), "mmlu") < self.share]

    def header(self, row):
        """Return the header of MMLU's authors, which published results use."""
        subject = row["subject"].replace("_", " ")
        return f"The following are multiple choice questions (with answers) about {subject}.\n\n"

    def raw(self, row):
        return super().raw(row).removeprefix("Question: ")


TASK = Mmlu()
