"""MMLU: 57 subjects of school, study and trade, four choices each. See `idlora.evals.multiple_choice` for the scores.

The benchmark's score is the mean over all items; each record names its subject for whoever wants the means of those.
Worked examples are of the question's own subject.

    <data_root>/mmlu/{dev,test}/SUBJECT_{dev,test}.csv      header question,choice0…choice3,answer (0 to 3)

Source: Hendrycks et al., Measuring Massive Multitask Language Understanding, 2021. Left out: the unions of subjects
(stem, humanities, …).
"""

from pathlib import Path

from idlora.data.catalogue import DatasetSpec
from idlora.data.files import read_table
from idlora.evals.multiple_choice import MultipleChoice, question


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

    def header(self, row):
        """Their own line, under which every published number was measured."""
        subject = row["subject"].replace("_", " ")
        return f"The following are multiple choice questions (with answers) about {subject}.\n\n"

    def raw(self, row):
        return super().raw(row).removeprefix("Question: ")


TASK = Mmlu()
