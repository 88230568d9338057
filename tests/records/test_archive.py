"""Packed records: deterministic bytes, complete unpacking, and no text written by a model."""

import json
import re

import pyarrow
import pytest

from reproduction.records import RecordError, Run, find_runs, read_items, write_items, write_json
from reproduction.records.archive import pack, unpack

MARKER = "what the model wrote \ud800"
EVALUATIONS = {"sums-0a", "refusals-0b"}
SECONDS = {"seconds": 7.5, "sittings": [["2026-01-01T00:00:00+00:00", 5.0], ["2026-01-02T00:00:00+00:00", 2.5]]}
CONFIG = {
    "experiment": "sums", "scale": "tiny", "seed": 0, "data": {"name": "sums"}, "train": {},
    "method": {"name": "lora", "kind": "peft"},
    "model": {"name": "pebble", "checksum": "c0ffee", "path_or_id": "/home/someone/pebble"},
}  # fmt: skip


def record(item, sample=0, **changes):
    return {
        "item_id": item, "item_hash": f"{item} itself", "prompt_hash": f"{item} as asked", "sample": sample,
        "raw": f"{MARKER} to {item}", "parsed": "4", "gold": "4", "scores": {"weighed": 1.0},
    } | changes  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    """Two finished runs, each with a generated and a judged evaluation."""
    for name in ("b", "a"):
        run = Run(tmp_path / "runs" / name)
        run.start(CONFIG)
        run.finish({"parameters_trainable": 5})
        evaluate(run, "sums", "0a", [record(item, sample) for item in ("2", "1") for sample in (1, 0)])
        evaluate(run, "refusals", "0b", [judged("x/1")], judge="prefix")
        evaluate(run, "others", "0c", [record("1")])
    write_json(tmp_path / "runs" / "a" / "seconds.json", SECONDS)
    return tmp_path / "runs"


def judged(item, **changes):
    return record(item, **{"parsed": "refusal", "gold": None, "category": "category_1"} | changes)


def evaluate(run, benchmark, digest, records, **protocol):
    folder = run.eval_folder(benchmark, digest)
    items = len({each["item_id"] for each in records})
    write_json(folder / "meta.json", {"benchmark": benchmark, "protocol": {"name": "only"} | protocol, "items": items})
    write_items(folder, records)


def packed(runs, folder):
    pack(find_runs(runs), folder, evaluations=EVALUATIONS)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines(data):
    text = pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd").read()
    return text, [json.loads(line) for line in text.splitlines()]


def test_every_record_comes_back_with_the_hash_of_its_raw_text_in_its_place(runs, tmp_path):
    once = packed(runs, tmp_path / "once")
    assert set(once) == {"runs.jsonl.zst", "sums-0a.jsonl.zst", "refusals-0b.jsonl.zst"}
    unpack(tmp_path / "once", tmp_path / "again")
    for before, after in zip(find_runs(runs), find_runs(tmp_path / "again"), strict=True):
        assert (after.name, after.status, after.resources) == (before.name, before.status, before.resources)
        assert after.done
        assert after.seconds == before.seconds == (SECONDS if after.name == "a" else {})
        own = [each for each in before.evaluations() if each.name in EVALUATIONS]
        for one, other in zip(own, after.evaluations(), strict=True):
            assert (other.name, other.meta) == (one.name, one.meta)
            found = {(each["item_id"], each["sample"]): each for each in read_items(other.folder)}
            for was in read_items(one.folder):
                now = found.pop((was["item_id"], was["sample"]))
                assert re.fullmatch("[0-9a-f]{16}", now.pop("raw_sha256"))
                assert now == {key: value for key, value in was.items() if key != "raw"}
            assert not found
    assert packed(runs, tmp_path / "twice") == packed(tmp_path / "again", tmp_path / "thrice") == once


def test_lines_are_ordered_by_item_then_run_and_numbers_rounded(runs, tmp_path):
    long = record("1", 0, nats=2 / 3, detail={"of": [1 / 3]}, scores={"weighed": 1 / 7})
    evaluate(Run(runs / "a"), "sums", "0a", [record("2"), record("1", 1), long])
    _, (meta, *found) = lines(packed(runs, tmp_path / "packed")["sums-0a.jsonl.zst"])
    assert meta["meta"]["benchmark"] == "sums"
    keys = [(each["item_id"], each["run"], each["sample"]) for each in found]
    assert keys == sorted(keys)
    assert (found[0]["nats"], found[0]["detail"]) == (0.6666667, {"of": [0.3333333]})
    assert found[0]["scores"] == {"weighed": 0.1428571}


def test_no_text_of_a_model_and_no_place_of_the_machine_is_packed(runs, tmp_path):
    (runs / "a" / "provenance.json").write_text(
        '{"command": "python /home/someone/scripts/table.py table=all results_dir=/home/someone/r workers=2"}'
    )
    for name, data in packed(runs, tmp_path / "packed").items():
        text, found = lines(data)
        assert b"what the model wrote" not in text
        assert b"someone" not in text
        if name == "runs.jsonl.zst":
            assert found[0]["provenance"]["command"] == "python table.py table=all workers=2"
            assert found[0]["config"]["model"] == {"name": "pebble", "checksum": "c0ffee"}


@pytest.mark.parametrize(
    "free_text", [{"parsed": "Take two spoons"}, {"parsed": "x" * 40}, {"detail": {"of": ["refusal", "then mix"]}}]
)
def test_a_judged_record_with_free_text_is_refused(runs, tmp_path, free_text):
    evaluate(Run(runs / "a"), "refusals", "0b", [judged("x/1", **free_text)], judge="prefix")
    with pytest.raises(RecordError, match=r"item 'x/1' of .*refusals-0b holds free text"):
        packed(runs, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_runs_that_are_not_done_or_were_asked_otherwise_are_refused(runs, tmp_path):
    unfinished = Run(runs / "c")
    unfinished.start(CONFIG)
    with pytest.raises(RecordError, match=r"/c is running"):
        packed(runs, tmp_path / "packed")
    unfinished.finish({})
    evaluate(unfinished, "sums", "0a", [record("1")], temperature=1)
    with pytest.raises(RecordError, match=r"c/eval/sums-0a/meta\.json differs from that of a"):
        packed(runs, tmp_path / "packed")
