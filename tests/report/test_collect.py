"""metrics.csv: tidy, rebuilt whole, the same bytes, and honest about runs that are not done."""

import csv

import pytest

from reproduction.records import Run, run_name
from reproduction.report import collect_metrics
from reproduction.report.collect import COLUMNS
from reproduction.report.intervals import wilson


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_run_benchmark_and_metric_is_one_row(full, tmp_path):
    out = tmp_path / "metrics.csv"
    collect_metrics(full.root, out, scale="tiny")
    rows = rows_of(out)
    assert tuple(rows[0]) == COLUMNS
    # per base model: 6 methods x (strict, flexible; pass@1, 5, 10; refusal twice; five held-out losses in two units)
    assert len(rows) == 2 * 6 * (7 + 5 * 2)
    assert len({(row["run"], row["protocol"], row["metric"]) for row in rows}) == len(rows)
    units = {row["metric"]: row["measure"] for row in rows}
    assert units.pop("nats_per_token") == "nats a token"
    assert units.pop("bits_per_byte") == "bits a byte"
    assert units == dict.fromkeys(("strict", "flexible", "pass@1", "pass@5", "pass@10", "refusal"), "percent")
    assert {row["status"] for row in rows} == {"done"}


def test_values_are_percent_with_their_interval_and_unit(full, tmp_path):
    rows = collect_metrics(full.root, tmp_path / "metrics.csv", scale="tiny")
    row = next(
        row for row in rows if (row["data"], row["method"], row["metric"]) == ("gsm8k", "lora", "strict")
        and row["model"] == "pebble"
    )  # fmt: skip
    correct = int(full.draw("gsm8k_llama3", "lora", "gsm8k").sum())
    assert row["value"] == pytest.approx(100 * correct / 60, abs=1e-5)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx([100 * bound for bound in wilson(correct, 60)], abs=1e-5)
    assert (row["items"], row["samples"], row["unit"]) == (60, 1, "question")


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
    (row,) = rows_of_collected(made, tmp_path)
    assert (row["status"], row["value"], row["metric"]) == ("oom", "", "")


def rows_of_collected(made, folder):
    collect_metrics(made.root, folder / "metrics.csv", scale="tiny")
    return rows_of(folder / "metrics.csv")


def test_runs_of_another_scale_are_left_out_and_named(world, tmp_path, caplog):
    made, other = world(), world(scale="paper")
    made.run("gsm8k_llama3", "lora")
    stray = other.run("gsm8k_llama3", "lora")
    rows = rows_of_collected(made, tmp_path)
    assert {row["model"] for row in rows} == {"pebble"}
    assert stray.name in caplog.text


def test_two_protocols_of_one_benchmark_are_rows_told_apart(world, tmp_path):
    made = world()
    run = made.run("gsm8k_llama3", "lora")
    made.evaluate(
        run, "gsm8k", made.draw("gsm8k_llama3", "lora", "gsm8k"), digest="feedbeef", protocol={"name": "other"}
    )
    rows = [row for row in rows_of_collected(made, tmp_path) if row["benchmark"] == "gsm8k"]
    assert {(row["protocol"], row["protocol_name"]) for row in rows} == {
        ("gsm8k-0badcafe", "only"), ("gsm8k-feedbeef", "other")
    }  # fmt: skip


def test_shares_follow_both_conventions_and_an_untuned_base_trains_nothing(full, tmp_path):
    rows = collect_metrics(full.root, tmp_path / "metrics.csv", scale="tiny")
    shares = {row["method"]: (row["params_pct_paper"], row["params_pct_plain"]) for row in rows}
    assert shares["idlora"] == pytest.approx((100 * 7 / 1355, 100 * 7 / 1307), abs=1e-5)
    assert shares["lora"][0] == shares["lora"][1]
    assert (shares["fft"], shares["base"]) == ((100.0, 100.0), (0.0, 0.0))
