"""CommonsenseQA: everyday questions with five choices. See `reproduction.evals.multiple_choice` for the scores.

Evaluated on the validation split, because the answers of the test split are not public.

    <data_root>/commonsenseqa/{train,validation}.jsonl      the hub's fields; worked examples come from train, or
                                                            without it from other validation rows

Source: Talmor et al., CommonsenseQA, 2019.
"""

from pathlib import Path

from reproduction.data.catalogue import DatasetSpec
from reproduction.data.sources import load_rows
from reproduction.evals.multiple_choice import MultipleChoice, question


def _convert(raw: dict) -> dict:
    choices = raw["choices"]
    if not isinstance(raw["id"], str):
        raise TypeError("its id is no text")
    return question(raw["question"], list(choices["text"]), choices["label"].index(raw["answerKey"]), id=raw["id"])


class CommonsenseQa(MultipleChoice):
    data = DatasetSpec(
        "commonsenseqa",
        ("question", "choices", "answer"),
        {"train": "train", "test": "validation"},
        "tau/commonsense_qa",
        rows={"test": 1_221},
        convert=_convert,
    )

    def examples(self, *, root, revisions=None):
        alone = root is not None and not (Path(root) / self.data.name / "train.jsonl").exists()
        return load_rows(self.data, self.split if alone else self.shown, root=root, revisions=revisions)


TASK = CommonsenseQa()
