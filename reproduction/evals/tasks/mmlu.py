"""MMLU: 57 subjects of school, study and trade, four choices each; scored by `reproduction.evals.multiple_choice`.

The benchmark's score is the mean over all items; each record names its subject for whoever wants the means of those.
Worked examples are of the question's own subject. With a `share` only so large a part of the questions is asked, the
same ones in every copy of the data: those whose text and choices fall lowest by a hash.

    <data_root>/mmlu/{dev,test}/SUBJECT_{dev,test}.csv      header question,choice0…choice3,answer (0 to 3)

Source: Hendrycks et al., Measuring Massive Multitask Language Understanding, 2021.
"""

from pathlib import Path

from reproduction.data.catalogue import DatasetSpec
from reproduction.data.files import read_table
from reproduction.data.splits import place
from reproduction.evals.multiple_choice import MultipleChoice, question


def _read(folder: Path, split: str) -> list[dict]:
    """The files of one split, the subjects in the order of their names, in the hub's fields."""
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
        """Their own line, under which every published number was measured."""
        subject = row["subject"].replace("_", " ")
        return f"The following are multiple choice questions (with answers) about {subject}.\n\n"

    def raw(self, row):
        return super().raw(row).removeprefix("Question: ")


TASK = Mmlu()
