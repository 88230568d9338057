"""Packing of finished runs' records into a few small files for git, and unpacking.

runs.jsonl.zst             a line for each run: {"run", "config", "status", "resources", "provenance", "seconds"}
<evaluation>.jsonl.zst     {"meta": meta.json}, then the records of this evaluation of all runs, by item and then run:
                           {"run", …}, with "raw_sha256" in the place of "raw"

Similar lines are adjacent, which compresses well; numbers are rounded to `DECIMALS`. A model's text is dropped; the
values parsed from it stay (for judged answers a verdict). Local paths are dropped from commands, and from config.json
if the weights have a checksum.
"""

import hashlib
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow

from reproduction.records.files import RecordError, one_sentence
from reproduction.records.items import DONE, ITEMS, META, RAW_HASH, read_items
from reproduction.records.status import Run
from reproduction.system.atomic import written_whole

ENDING = ".jsonl.zst"
RUNS = f"runs{ENDING}"
PARTS = ("config", "status", "resources", "provenance")
"""Files <part>.json of a run's folder; older runs lack `SECONDS`."""
SECONDS = "seconds"

LEVEL = 19
"""Compression level of zstd, high because packing is rare."""

NOT_BY_A_MODEL = frozenset({"run", "item_id", "item_hash", "prompt_hash", "gold", RAW_HASH})
"""Text fields of a record that a model did not write."""

WORD = re.compile(r"[\w./-]{0,32}", re.ASCII)
"""Pattern for all other texts of a judged record: a verdict or a name."""

DECIMALS = 7
"""Decimals of packed numbers; further digits of float32 values would make up most of the size."""

Line = dict[str, Any]


def pack(runs: Iterable[Run], folder: Path, *, evaluations: Collection[str]) -> None:
    """Write the records of finished runs into a folder: the same bytes for the same records.

    Args:
        runs: in any order.
        folder: a folder without packed records, created if missing.
        evaluations: names of the evaluation folders to pack.

    Raises:
        RecordError: a run is not done or a record cannot be read, two runs differ in an evaluation's meta.json, or a
            record of a judged evaluation holds free text.
    """
    runs = sorted(runs, key=lambda run: run.name)
    metas: dict[str, Line] = {}
    records: dict[str, list[Line]] = defaultdict(list)
    for run in runs:
        if not run.done:
            raise RecordError(f"{run.folder} is {run.state or 'no run'}, and only finished runs are kept: run it first")
        for evaluation in (each for each in run.evaluations() if each.name in evaluations):
            if metas.setdefault(evaluation.name, evaluation.meta) != evaluation.meta:
                raise RecordError(
                    f"{evaluation.folder / META} differs from that of {records[evaluation.name][0]['run']}: evaluate "
                    "both alike"
                )
            own = [{"run": run.name, **_without_raw(record)} for record in read_items(evaluation.folder)]
            if evaluation.protocol.get("judge") is not None:
                _refuse_free_text(own, evaluation.folder)
            records[evaluation.name] += own
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / RUNS, map(_run_line, runs))
    for name, found in records.items():
        found.sort(key=lambda record: (record["item_id"], record["run"], record["sample"]))
        _write(folder / f"{name}{ENDING}", [{"meta": metas[name]}, *found])


def unpack(folder: Path, into: Path) -> None:
    """Unpack records into an empty folder in the layout of runs/: config.json …, eval/<name>/{items.jsonl, …}.

    The files are temporary: they are not fsynced, and damage is not detected
    (`reproduction.report.reference.require_records` detects it).
    """
    for line in _lines(folder / RUNS):
        (into / line["run"]).mkdir(parents=True)
        for part in (*PARTS, *({SECONDS} & line.keys())):
            _put(into / line["run"] / f"{part}.json", json.dumps(line[part]))
    for path in sorted(folder.glob(f"*{ENDING}")):
        if path.name == RUNS:
            continue
        lines = _lines(path)
        meta, items = json.dumps(next(lines)["meta"]), defaultdict(list)
        for record in lines:
            items[record.pop("run")].append(json.dumps(record) + "\n")
        for run, own in items.items():
            evaluation = into / run / "eval" / path.name.removesuffix(ENDING)
            evaluation.mkdir(parents=True)
            text = "".join(own)
            for name, content in ((META, meta), (ITEMS, text), (DONE, hashlib.sha256(text.encode()).hexdigest())):
                _put(evaluation / name, content)


def _without_raw(record: Mapping[str, Any]) -> Line:
    packed = {name: value for name, value in record.items() if name != "raw"}
    if "raw" in record:
        packed[RAW_HASH] = hashlib.sha256(record["raw"].encode(errors="surrogatepass")).hexdigest()[:16]
    return _rounded(dict(sorted(packed.items())))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def _refuse_free_text(records: Iterable[Line], folder: Path) -> None:
    for record in records:
        for text in _texts({name: value for name, value in record.items() if name not in NOT_BY_A_MODEL}):
            if not WORD.fullmatch(text):
                raise RecordError(
                    f"item {record['item_id']!r} of {folder} holds free text beside its raw answer, and what a model "
                    "answers there must not be kept: have the benchmark record a verdict alone"
                )


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value, including the keys of its objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _run_line(run: Run) -> Line:
    line = {part: getattr(run, part) for part in PARTS}
    if (model := line["config"]["model"]).get("checksum"):
        line["config"]["model"] = {name: value for name, value in model.items() if name != "path_or_id"}
    if command := line["provenance"].get("command"):
        words = (Path(word).name if word.startswith("/") else word for word in shlex.split(command))
        line["provenance"]["command"] = shlex.join(word for word in words if "=/" not in word)
    if run.seconds:
        line[SECONDS] = run.seconds
    return {"run": run.name, **line}


def _write(path: Path, lines: Iterable[Line]) -> None:
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    packed = pyarrow.Codec("zstd", compression_level=LEVEL).compress(text.encode(), asbytes=True)
    with one_sentence("write", path), written_whole(path) as file:
        file.write(packed)


def _lines(path: Path) -> Iterator[Line]:
    data = pyarrow.CompressedInputStream(pyarrow.BufferReader(path.read_bytes()), "zstd").read()
    return map(json.loads, data.splitlines())


def _put(path: Path, text: str) -> None:
    with one_sentence("write", path):
        path.write_text(text, encoding="utf-8", newline="\n")
