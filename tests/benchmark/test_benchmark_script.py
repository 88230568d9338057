"""scripts/benchmark.py from the command line: a small model, two methods, three phases."""

import csv
import json
from pathlib import Path

import forks
import pytest

from reproduction.benchmark.record import COLUMNS
from reproduction.cells.compose import compose
from reproduction.commands.benchmark import plan_from_config
from reproduction.report.costs import short_table

ASKED = (
    "methods=[lora,idlora_inner]", "scenarios=[train,prefill,decode]", "batch=2", "length=16", "layers=2", "repeats=3",
    "allow_busy=true",
    "suite.limits.load=1000", "suite.limits.utilisation=1000", "suite.limits.drift=1000", "suite.limits.spread=1000",
)  # fmt: skip
VARIANTS = {"train": {"base", "lora", "idlora_inner"}}
VARIANTS |= {phase: {"base", "lora", "lora_merged", "idlora_inner"} for phase in ("prefill", "decode")}


@pytest.fixture(scope="module")
def written(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return results/cpu after the command."""
    results = tmp_path_factory.mktemp("results")
    script = repository / "scripts" / "benchmark.py"
    done = forks.start(script, [*ASKED, f"results_dir={results}"], folder=results).end()
    assert done.returncode == 0, done.stderr
    assert "prefill" in done.stdout
    return results / "cpu"


@pytest.fixture(scope="module")
def rows(written: Path) -> list[dict[str, str]]:
    with (written / "benchmark.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_scenario_has_a_row_of_every_variant_and_all_are_done(rows) -> None:
    assert tuple(rows[0]) == COLUMNS
    for name, variants in VARIANTS.items():
        assert {row["variant"] for row in rows if row["scenario"] == name} == variants
    assert len(rows) == sum(map(len, VARIANTS.values()))
    assert {row["status"] for row in rows} == {"done"}
    assert {(row["layers"], row["batch"], row["length"], row["repeats"]) for row in rows} == {("2", "2", "16", "3")}


def test_times_are_in_order_and_ratios_are_to_the_bases_median(rows) -> None:
    base = {row["scenario"]: float(row["median_ms"]) for row in rows if row["variant"] == "base"}
    for row in rows:
        assert 0 < float(row["min_ms"]) <= float(row["q1_ms"]) <= float(row["median_ms"]) <= float(row["q3_ms"])
        assert float(row["ratio"]) == pytest.approx(float(row["median_ms"]) / base[row["scenario"]], rel=1e-4)
        assert row["base_drift"]
    assert {row["ratio"] for row in rows if row["variant"] == "base"} == {"1"}
    nothing = ("peak_mib", "memory_ratio", "extra_mib", "compile_seconds", "graphs", "graph_breaks")  # on a CPU, eager
    assert {row[column] for row in rows for column in nothing} == {""}


def test_the_saved_adapter_holds_what_is_trained_and_the_indices_and_little_else(rows) -> None:
    for row in rows:
        if row["variant"] == "base":
            assert (row["trainable"], row["adapter_file_bytes"]) == ("0", "")
            continue
        whole = int(row["trainable_bytes"]) + int(row["index_bytes"])
        assert int(row["trainable_bytes"]) == 4 * int(row["trainable"]) > 0
        assert whole < int(row["adapter_file_bytes"]) < whole + 20_000
        assert (int(row["index_bytes"]) > 0) == (row["variant"] == "idlora_inner") == bool(row["pivot_seconds"])


def test_the_environment_stands_in_every_row_and_the_report_and_the_command_beside_them(rows, written: Path) -> None:
    assert {row["device"] for row in rows} == {"cpu"}
    assert all(row[column] for row in rows for column in ("torch", "transformers", "peft", "python", "model"))
    run = json.loads((written / "provenance.json").read_text())["runs"][0]
    assert run["command"].partition("/scripts/")[2].startswith("benchmark.py 'methods=[lora,idlora_inner]'")
    assert run["scenarios"] == list(VARIANTS)
    assert "ID-LoRA, inner-product router" in (table := short_table(rows))
    text = (written / "benchmark.md").read_text()
    assert table in text.partition("## ")[0]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["scenarios=[fly]"], "scenarios=fly"),
        (["methods=[vera]"], "methods=vera"),
        (["batch=0"], "batch is 0"),
        (["reference=lora"], "reference=lora"),
        (["model.init=pretrained"], "model.init is pretrained"),
        (["suite.scenarios.train.variants=[lora_merged]"], "lora_merged"),
        (["suite.scenarios.train.variants=[nobody]"], "nobody"),
        (["suite.limits.drift=0"], "limits.drift is 0"),
        (["+suite.scenarios.train.speed=9"], r"suite\.scenarios\.train\.speed"),
        (["suite.scenarios.train.phase=fly"], "'fly'"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(overrides, words) -> None:
    with pytest.raises(ValueError, match=words):
        plan_from_config(compose("benchmark", overrides))


def test_suites_are_sound_and_scenarios_that_agree_are_measured_together() -> None:
    groups = plan_from_config(compose("benchmark", ["suite=llama3_8b", "device=cpu"])).groups
    assert [len(group.scenarios) for group in groups] == [1, 2, 1, 1, 2, 1, 1, 4, 4]
    assert {group.scenarios[0].layers for group in groups} == {8, 32}
    for group in groups:
        methods = [variant.method for variant in group.variants[1:]]
        assert {method.arguments["lora_dropout"] for method in methods} == {group.scenarios[0].dropout}
        assert {method.arguments["r"] for method in methods if method.name == "idlora"} == {128}
    plan = plan_from_config(compose("benchmark", ["layers=1"]))
    assert plan.model.shape["hidden_size"] == 192  # from the model's folder
    assert plan.groups[0].scenarios[0].layers == 1
