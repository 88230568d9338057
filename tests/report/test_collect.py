"""metrics.csv: tidy, rebuilt whole, deterministic, and explicit about runs that are not done."""

import csv

import pytest

from reproduction.records import Run, run_name
from reproduction.report import collect_metrics
from reproduction.report.collect import COLUMNS
from reproduction.report.intervals import wilson


def rows_of(made, folder):
    collect_metrics(made.root, folder / "metrics.csv", scale="tiny")
    return list(csv.DictReader((folder / "metrics.csv").open()))


def test_every_run_benchmark_and_metric_is_one_row_in_its_unit_with_its_interval(full, tmp_path):
    rows = rows_of(full, tmp_path)
    assert tuple(rows[0]) == COLUMNS
    # per base model: 6 methods x (strict, flexible; pass@1, 5, 10; refusal twice; five held-out losses in two units)
    assert len(rows) == len({(r["run"], r["protocol"], r["metric"]) for r in rows}) == 2 * 6 * (7 + 5 * 2)
    units = {row["metric"]: row["measure"] for row in rows}
    assert (units.pop("nats_per_token"), units.pop("bits_per_byte")) == ("nats a token", "bits a byte")
    assert units == dict.fromkeys(("strict", "flexible", "pass@1", "pass@5", "pass@10", "refusal"), "percent")
    assert {row["status"] for row in rows} == {"done"}
    row = next(r for r in rows if (r["model"], r["data"], r["method"], r["metric"])
               == ("pebble", "gsm8k", "lora", "strict"))  # fmt: skip
    correct = int(full.draw("gsm8k_llama3", "lora", "gsm8k").sum())
    numbers = [float(row[name]) for name in ("value", "ci_low", "ci_high")]
    assert numbers == pytest.approx([100 * each for each in (correct / 60, *wilson(correct, 60))], abs=1e-5)
    assert (row["items"], row["samples"], row["unit"]) == ("60", "1", "question")
    shares = {r["method"]: (float(r["params_pct_paper"]), float(r["params_pct_plain"])) for r in rows}
    assert shares["idlora"] == pytest.approx((100 * 7 / 1355, 100 * 7 / 1307), abs=1e-5)
    assert shares["lora"][0] == shares["lora"][1]
    assert (shares["fft"], shares["base"]) == ((100.0, 100.0), (0.0, 0.0))


def test_a_rebuild_gives_the_same_bytes_and_forgets_what_is_gone(world, tmp_path):
    made, out = world(), tmp_path / "metrics.csv"
    made.run("gsm8k_llama3", "lora")
    collect_metrics(made.root, out, scale="tiny")
    first = out.read_bytes()
    extra = made.run("gsm8k_llama3", "idlora")
    collect_metrics(made.root, out, scale="tiny")
    assert out.read_bytes() != first
    (extra.folder / "config.json").unlink()
    collect_metrics(made.root, out, scale="tiny")
    assert out.read_bytes() == first


def test_a_run_that_is_not_done_is_a_row_with_its_state_and_no_value(world, tmp_path):
    made = world()
    config = made.config("gsm8k_llama3", "lora")
    run = Run(made.root / run_name(config))
    run.start(config)
    run.fail("oom", "no memory left")
    (row,) = rows_of(made, tmp_path)
    assert (row["status"], row["value"], row["metric"]) == ("oom", "", "")


def test_runs_of_another_scale_are_left_out_and_named_and_two_protocols_are_told_apart(world, tmp_path, caplog):
    made = world()
    run = made.run("gsm8k_llama3", "lora", benchmarks=["gsm8k"])
    stray = world(scale="paper").run("gsm8k_llama3", "lora")
    outcomes = made.draw("gsm8k_llama3", "lora", "gsm8k")
    made.evaluate(run, "gsm8k", outcomes, digest="feedbeef", protocol={"name": "other"})
    rows = rows_of(made, tmp_path)
    assert {(row["model"], row["protocol"], row["protocol_name"]) for row in rows} == {
        ("pebble", "gsm8k-0badcafe", "only"), ("pebble", "gsm8k-feedbeef", "other")
    }  # fmt: skip
    assert stray.name in caplog.text
