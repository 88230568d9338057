"""A run whose records cannot be read is told with its file and the way out, and everything else is reported."""

import pytest

from reproduction.records import read_json, write_json
from reproduction.report import collect_metrics, gather, lay_out
from reproduction.report.render import markdown

META = "eval/gsm8k-0badcafe/meta.json"


def changed(file: str, **values):
    def change(path):
        place = path.parent / file
        write_json(place, read_json(place) | values)

    return change


LACKING = {"parameters_trainable": 7}
KINDS = {
    "config.json": (lambda path: path.write_text('{"experiment": "gsm'), "config.json is not JSON"),
    "a config of another kind": (
        lambda path: write_json(path.parent / "config.json", {"scale": "tiny", "model": "pebble", "data": {}}),
        "a run's config needs 'method'",
    ),
    "a config without a kind": (changed("config.json", method={"name": "lora"}), "a run's config needs 'kind'"),
    "a count of nothing": (changed("resources.json", parameters_total=0), "cannot be used (ZeroDivisionError"),
    "a protocol of words": (changed(META, protocol="x"), "meta.json says protocol 'x'"),
    "status.json": (lambda path: path.write_bytes(b"\x00" * 40), "status.json is not JSON"),
    "resources.json": (lambda path: path.write_text("[]"), "resources.json holds a list, not an object"),
    "counts that lack": (
        lambda path: write_json(path.parent / "resources.json", LACKING),
        "resources.json lacks parameters_router, parameters_total, frozen_copies",
    ),
    META: (lambda path: path.write_text("{}"), "meta.json lacks benchmark, items, protocol"),
    "eval/gsm8k-0badcafe/items.jsonl": (lambda path: path.write_text("{}"), "not evaluated on gsm8k"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_damaged_run_is_told_and_the_rest_of_the_table_is_made(world, few, tmp_path, caplog, kind):
    damage, sentence = KINDS[kind]
    made = world(grid=few).fill()
    whole = gather(few, made.root, scale="tiny")
    run = made.run("gsm8k_llama3", "lora")
    damage(run.folder / kind)
    expected = made.made().runs
    left = gather(few, made.root, scale="tiny", expected=expected)
    (missing,) = left.missing
    assert sentence in missing.reason
    assert missing.cell == ("gsm8k_llama3", "lora", 0)
    assert whole.cells.keys() - left.cells.keys() <= {key for key in whole.cells if key[1] == "lora"}
    assert ("llama3", "lora", "gsm8k") not in left.cells
    for key, cell in left.cells.items():
        assert (cell.values == whole.cells[key].values).all()
    assert missing.command in markdown(lay_out(left))
    rows = collect_metrics(made.root, tmp_path / "metrics.csv", scale="tiny")
    assert {row["run"] for row in rows} == {path.name for path in made.root.iterdir()}
    told = [row for row in rows if row["status"] != "done"]
    if "items" not in kind:  # scores that do not fit their mark are none
        assert [(row["run"], row["status"]) for row in told] == [(run.name, "damaged")]
        assert sentence in caplog.text
