"""scripts/pivots.py: a table and a CSV for any base or a finished run."""

import csv
import io

import pytest
from rich.console import Console

from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.cells.override import override
from reproduction.commands.pivots import Inspection, replace_rows, report_pivots
from reproduction.running.train import train_cell

TWO_LAYERS = "+method.arguments.layers_to_transform=[0,2]"
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def asked(results, *overrides) -> Inspection:
    return Inspection.from_config(compose("pivots", ["scale=tiny", override("results_dir", results), *overrides]))


def reported(inspection) -> tuple[str, list[dict[str, str]]]:
    """Return the printed text and the rows of the CSV."""
    printed = io.StringIO()
    report_pivots(inspection, Console(width=80, file=printed))
    with inspection.out.open(newline="") as file:
        return printed.getvalue(), list(csv.DictReader(file))


def test_a_base_gives_a_row_for_each_type_of_module(tmp_path):
    results = tmp_path / "a [b], (1)"  # rich reads brackets as a style
    inspection = asked(results, "model=mistral_7b", override("model.label", "Cobble [b]"), TWO_LAYERS)
    assert inspection.out == results / "tiny" / "pivots.csv"
    text, rows = reported(inspection)
    assert [row["module"] for row in rows] == MODULES
    for row in rows:
        assert (row["base"], row["method"], row["run"], row["layers"]) == ("cobble", "idlora", "", "2")
        assert (row["k"], row["r"], row["rank_bound"], row["rank_bound_paper"]) == ("4", "12", "12", "48")
        assert float(row["share"]) == 48 / int(row["rows"])
        assert 12 <= int(row["cluster_min"]) <= float(row["cluster_median"]) <= int(row["cluster_max"])
        assert float(row["overlap_pmrc"]) == 1
        assert 0 <= float(row["overlap_largest_norm"]) < 1
        assert 1 < float(row["mixture_effective_rank"]) <= 12
        assert (row["update_rank"], row["router_entropy"]) == ("", "")
        assert row["module"] in text
    assert "Cobble [b], ID-LoRA" in text
    assert max(map(len, text.split("written")[0].splitlines())) <= 80


def test_a_rank_by_layer_gives_a_row_for_each_rank_of_a_module(tmp_path):
    own = ("method.arguments.target_modules=[q_proj,v_proj]", "+method.arguments.rank_pattern={layers.2.*q_proj:6}")
    _, rows = reported(asked(tmp_path, "model=mistral_7b", TWO_LAYERS, *own))
    assert [(row["module"], row["layers"], row["r"]) for row in rows] == [
        ("q_proj", "1", "12"), ("v_proj", "2", "12"), ("q_proj", "1", "6"),
    ]  # fmt: skip
    assert [int(row["rank_bound"]) for row in rows] == [12, 12, 6]


def test_a_run_gives_its_update_and_its_router_on_prompts_of_its_own_data(tmp_path):
    short = ("hparams=paper", "train.max_steps=2", "data.limit=32", TWO_LAYERS, f"results_dir={tmp_path}")
    cell = compose_cell("gsm8k_llama3", "idlora", scale="tiny", seed=1, overrides=short)
    train_cell(cell)
    inspection = asked(tmp_path, f"run={cell.run.folder}", "prompts=3")
    assert (inspection.model.name, inspection.data.name, inspection.data.limit) == ("pebble", "gsm8k", 3)
    _, rows = reported(inspection)
    for row in rows:
        assert (row["run"], row["seed"]) == (cell.run.folder.name, "1")
        assert int(row["update_rank"]) <= 12
        assert 0 < float(row["update_effective_rank"]) <= 12
        assert 0.9 < float(row["router_entropy"]) <= 1


def test_rows_are_replaced_with_those_of_the_same_base_and_method_and_the_others_stay(tmp_path):
    path = tmp_path / "pivots.csv"
    first = {"base": "a", "method": "m", "run": "", "k": 4, "r": 8, "seed": 0, "norm": 0.123456789}
    replace_rows(path, [first, first | {"base": "b"}, first | {"seed": 1}])
    replace_rows(path, [first | {"norm": 2.0}])
    assert path.read_text() == (
        "base,method,run,k,r,seed,norm\na,m,,4,8,0,2\na,m,,4,8,1,0.123457\nb,m,,4,8,0,0.123457\n"
    )
    with pytest.raises(ConfigError, match="other columns"):
        replace_rows(path, [first | {"new": 1}])


@pytest.mark.parametrize("overrides", ["run=nowhere", "prompts=0", "model.path_or_id=./nowhere", "method=lora"])
def test_what_has_no_pivots_is_refused(overrides, tmp_path):
    with pytest.raises(ConfigError, match=overrides):
        report_pivots(asked(tmp_path, overrides))
    assert not (tmp_path / "tiny" / "pivots.csv").exists()
