"""Rows of every data set, from a local folder or from the hub.

<root>/gsm8k/{train,test}.jsonl         question, answer
<root>/codealpaca/*.json                instruction, input, output        (one file)
<root>/alpaca/*.json                    instruction, input, output        (one file)
<root>/alpaca_cleaned/*.json            instruction, input, output        (one file)
<root>/saferpaca/*.json                 instruction, input, output        (the authors' assembled file; if only
                                        their safety_only… file, the set "safety", is present, alpaca_cleaned
                                        completes it)
<root>/<benchmark>/                     see its module in reproduction/evals/tasks
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproduction.data.catalogue import DATASETS, INSTRUCTION_COLUMNS, SAFETY_ALONE, DataError, DatasetSpec, revision_of
from reproduction.data.files import clean, read_json, read_jsonl
from reproduction.data.splits import limit

NO_INPUT = "noinput"  # written instead of an empty input in 17 rows of CodeAlpaca
SAFERPACA = {"alpaca_cleaned": 20_000, "safety": 2_000}  # rows of each part (Bianchi et al., 2024)


def load_rows(
    data: DatasetSpec | str, split: str, *, root: Path | str | None, revisions: Mapping[str, str] | None = None
) -> list[dict]:
    """Return the rows of a data set in the source's order, each with its columns and a stable "id".

    The id is the source's own if there is one, else `"<split>/<index>"`.

    Args:
        data: a training set's name in `DATASETS`, or any spec.
        split: a split of the data set, such as "train", "dev" or "test".
        root: folder in the layout above; None for the hub.
        revisions: commit, branch or tag of hub data sets by name; the default is the newest.

    Raises DataError for an unknown name or split, missing or damaged files, an invalid row, or a failed download.
    """
    spec = DATASETS.get(data) if isinstance(data, str) else data
    if spec is None:
        raise DataError(f"No training set {data!r}: choose one of {', '.join(DATASETS)}.")
    if split not in spec.splits:
        raise DataError(f"Data set {spec.name!r} has no split {split!r}: choose one of {', '.join(spec.splits)}.")
    if root is None:
        return load_from_hub(spec, split, revision=revision_of(spec.name, revisions))
    return _load_from_folder(spec, split, Path(root))


def load_from_hub(spec: DatasetSpec, split: str, *, revision: str) -> list[dict]:
    """Return rows like `load_rows`, from the hub or its local cache. Raises DataError."""
    source = spec.source(revision)
    if source is None:
        if spec.bundled is None:
            raise DataError(f"Data set {spec.name!r} is on no hub: set data_root to a folder with {spec.home}/ in it.")
        return _rows(spec, split, spec.bundled(), source=spec.name)
    from reproduction.data.hub import fetch, fetch_files  # imports the hub's client, which local folders do not need

    if spec.hub_files:  # `datasets` would read the first prompt of a headerless file as header
        raw = spec.read(fetch_files(spec, revision), spec.splits[split])
    else:
        raw = list(fetch(spec, revision)[spec.splits[split]])
    rows = _rows(spec, split, raw, source=source)
    if spec.sizes and len(rows) not in spec.sizes:
        raise DataError(
            f"{source} at revision {revision} has {len(rows)} rows, and {spec.name} has "
            f"{' or '.join(map(str, spec.sizes))}: set revisions.{spec.name} to a commit that has, or data_root."
        )
    return rows


def _load_from_folder(spec: DatasetSpec, split: str, root: Path) -> list[dict]:
    if not root.is_dir():
        raise DataError(f"No data folder {root}: set data_root to an existing folder, or to null for the hub.")
    folder, own = root / spec.home, spec.splits[split]
    if spec.bundled is not None and not (folder.is_dir() and any(folder.iterdir())):
        return _rows(spec, split, spec.bundled(), source=f"the package that has {spec.name}")
    if not folder.is_dir():
        raise DataError(f"No folder {folder}: put {spec.name} there, or set data_root to null for the hub.")
    if spec.read is not None:
        return _rows(spec, split, spec.read(folder, own), source=folder)
    if spec.columns == INSTRUCTION_COLUMNS and spec.file is None:
        path = _only_json(folder)
    else:
        path = folder / (spec.file or f"{own}.jsonl")
    rows = _rows(spec, split, read_jsonl(path) if path.suffix == ".jsonl" else read_json(path), source=path)
    return _assembled(rows, path, root) if spec.assembled_from and path.name.startswith(SAFETY_ALONE) else rows


def _only_json(folder: Path) -> Path:
    """Return the only .json file of a folder; a `SAFETY_ALONE` file is used only if there is no other."""
    every = sorted(folder.glob("*.json"))
    found = [path for path in every if not path.name.startswith(SAFETY_ALONE)] or every
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder} must hold exactly one .json file, and holds {names}: leave the one to train on.")
    return found[0]


def files_in_folder(spec: DatasetSpec, root: Path) -> list[Path]:
    """Return the files under a data root that a data set is read from, including sets that complete it."""
    if spec.folder is not None:
        return [path for path in [root / spec.folder / spec.file] if path.is_file()]
    partial = [path.name.startswith(SAFETY_ALONE) for path in (root / spec.name).glob("*.json")]
    completed = spec.assembled_from if partial and all(partial) else ()
    return sorted(path for name in (spec.name, *completed) for path in (root / name).rglob("*") if path.is_file())


def _assembled(safety: list[dict], path: Path, root: Path) -> list[dict]:
    """Assemble Saferpaca from its safety rows and alpaca-cleaned, with `SAFERPACA`'s counts, chosen by `limit`.

    The authors published only the result of their own draw, so these are other rows of the same kinds.
    """
    if not (root / "alpaca_cleaned").is_dir():
        raise DataError(
            f"{path} has Saferpaca's safety rows alone, which are not to be trained on by themselves: put "
            f"yahma/alpaca-cleaned's .json file into {root / 'alpaca_cleaned'}, or their authors' "
            f"saferpaca_Instructions_2000.json in the place of this file."
        )
    parts = {"alpaca_cleaned": load_rows("alpaca_cleaned", "train", root=root), "safety": safety}
    for part, count in SAFERPACA.items():
        if len(parts[part]) < count:
            raise DataError(f"Saferpaca takes {count} rows of {part}, and {root} has {len(parts[part])}.")
    return [
        row | {"id": f"{part}/{row['id']}", "part": part}
        for part, count in SAFERPACA.items()
        for row in limit(parts[part], count)
    ]


def _rows(spec: DatasetSpec, split: str, raw: list, *, source: object) -> list[dict]:
    if not raw:
        raise DataError(f"{source} holds no rows: fetch {spec.name} again.")
    rows, seen = [], Counter()
    for index, item in enumerate(raw):
        where = f"Row {index} of {source}"
        if not isinstance(item, dict):
            raise DataError(f"{where} is a {type(item).__name__}: expected a JSON object.")
        try:
            row = _text_row(spec, item, where=where) if spec.convert is None else spec.convert(item)
        except DataError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where} is not as {spec.name} has them ({type(error).__name__}: {error}): fetch {spec.name} again."
            ) from error
        group = f"{row[spec.grouped_by]}/" if spec.grouped_by else ""
        row = {**row, "id": row.get("id", f"{split}/{group}{seen[group]}")}
        seen[group] += 1
        rows.append({column: _clean(value, f"{where}, {column}") for column, value in row.items()})
    return rows


def _text_row(spec: DatasetSpec, raw: dict[str, Any], *, where: str) -> dict[str, Any]:
    if "input" in spec.columns:
        raw = {**raw, "input": raw.get("input") or ""}  # optional in Alpaca's schema
    if missing := [column for column in spec.columns if not isinstance(raw.get(column), str)]:
        raise DataError(
            f"{where} has no text in {', '.join(missing)} (it has {', '.join(map(str, raw))}): "
            f"{spec.name} needs the columns {', '.join(spec.columns)}."
        )
    row = {column: raw[column] for column in spec.columns}
    if row.get("input", "").strip().lower() == NO_INPUT:
        row["input"] = ""
    return row


def _clean(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return [_clean(each, where) for each in value]
    return clean(value, where=where) if isinstance(value, str) else value
