"""scripts/evaluation_speed.py from the command line on the CPU with an embedded base and both baselines."""

import json

import pytest
import torch

from reproduction.cells.compose import compose
from reproduction.cells.from_config import eval_job_from_config
from reproduction.commands import speed
from reproduction.report.speed import COLUMNS, read_speed, write_speed

ASKED = (
    "scale=tiny", "model=llama3_8b", "eval=[gsm8k,mmlu,heldout]", "eval.gsm8k.limit=6", "eval.mmlu.limit=12",
    "eval.heldout.limit=6", "eval.gsm8k.max_new_tokens=12", "compared=4",
)  # fmt: skip


def test_every_benchmark_has_a_row_of_its_whole_and_of_what_both_ways_take(repository, tmp_path, script, monkeypatch):
    folder = tmp_path / "cpu"
    monkeypatch.chdir(repository)
    done = script("evaluation_speed", *ASKED, f"results_dir={tmp_path}", f"into={folder}", "label=Small")
    assert done.returncode == 0, done.stderr
    assert "transformers" in done.stdout
    rows = {f"{row['benchmark']} {row['protocol']}": row for row in read_speed(folder)}
    assert set(rows) == {"gsm8k 0shot", "mmlu likelihood_0shot", "heldout gsm8k_test", "heldout humaneval"}
    assert [row["items"] for row in rows.values()] == ["6", "6", "6", "12"]
    for row in rows.values():
        model_seconds = float(row["prefill_seconds"]) + float(row["decode_seconds"])
        assert 0 < model_seconds < float(row["seconds"])
        assert (row["model"], row["device"], row["weights"]) == ("Small", "cpu", "pretrained")
    asked, letters = rows["gsm8k 0shot"], rows["mmlu likelihood_0shot"]
    for row in (asked, letters):
        ratio = float(row["baseline_seconds"]) / float(row["compared_seconds"])
        assert float(row["speedup"]) == pytest.approx(ratio, rel=1e-3)
        assert row["compared_items"] == "4"
        assert float(row["agreement"]) == 1  # in float32 the answers are equal
    assert (asked["baseline"], letters["baseline"]) == ("transformers", "lm-eval")
    assert asked["compared_tokens"] == str(4 * 12)  # no end token ends an answer, in either
    assert rows["heldout humaneval"]["baseline"] == ""
    (run,) = json.loads((folder / "provenance.json").read_text())["runs"]
    assert "scripts/evaluation_speed.py scale=tiny" in run["command"]
    assert "into=" not in run["command"]
    assert set(run["benchmarks"]) == set(rows)
    assert all(row["command"] == run["command"] and row["lm_eval"] for row in rows.values())
    assert "| Small | gsm8k 0shot | 6 | 6 |" in (folder / "evaluation.md").read_text()


def test_a_row_that_is_measured_anew_takes_the_place_of_the_old_one(tmp_path):
    def row(model: str, seconds: float) -> dict:
        own = dict.fromkeys(COLUMNS, 0) | {"model": model, "benchmark": "mmlu", "protocol": "p", "baseline": ""}
        return own | {"seconds": seconds}

    write_speed([row("b", 1.0), row("a", 2.0)], tmp_path)
    write_speed([row("a", 3.0)], tmp_path)
    assert [(each["model"], each["seconds"]) for each in read_speed(tmp_path)] == [("a", "3"), ("b", "1")]


def test_ways_that_do_not_give_the_same_number_of_tokens_are_no_comparison(monkeypatch):
    subject = eval_job_from_config(compose("evaluation_speed", [*ASKED, "eval.gsm8k.limit=2"]))
    monkeypatch.setattr(speed, "_generate", lambda *given, tokens: torch.zeros(2, tokens + 1).long())
    with pytest.raises(RuntimeError, match="gsm8k: the two ways did not generate the same number of tokens"):
        speed.measure(subject, compared=2, on_row=print)
