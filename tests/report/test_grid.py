"""Grids in experiments/<table>/: complete, consistent with the configs, and rejected if their parts do not fit."""

import dataclasses
import shutil

import pytest
import yaml

from reproduction.report import GridError, load_grid
from reproduction.report.measures import PERCENT


@pytest.fixture(scope="module")
def grids(repository):
    return {path.parent.name: load_grid(path.parent) for path in (repository / "experiments").glob("*/grid.yaml")}


def test_table_1_asks_for_two_bases_and_six_methods_on_three_tasks(grid):
    assert len(grid.cells()) == 6 * 6
    assert grid.benchmarks("saferpaca_mistral", "tiny") == ["hexphi", "hexphi_benign", "heldout"]
    assert grid.benchmarks("saferpaca_mistral", "paper") == ["hexphi"]
    assert grid.benchmarks("codealpaca_llama3", "tiny") == ["humaneval", "heldout"]


def test_every_grid_asks_for_configs_that_exist_and_has_the_papers_rows_and_columns_of_held_out_loss(grids, repository):
    configs = repository / "configs"
    for name, grid in grids.items():
        models = {own for base in grid.bases.values() for kind, own in base["model"].items() if kind != "embedded"}
        benchmarks = {column.benchmark for column in grid.columns}
        for kind, names in (
            ("experiment", grid.experiments), ("method", grid.methods), ("eval", benchmarks), ("model", models)
        ):  # fmt: skip
            assert not [each for each in names if not (configs / kind / f"{each}.yaml").is_file()], name
        assert {method for _, method, _ in grid.paper} <= set(grid.methods)
        assert {base for base, _, _ in grid.paper} <= set(grid.bases)
        shown = {each.id for each in grid.columns_at("paper") if not each.beside and each.measure is PERCENT}
        assert not grid.paper or shown == {column for _, _, column in grid.paper} - {"params_pct"}
        for base in grid.bases.values() if name == "table1" else ():
            for kind, folder in (("paper", "model"), ("embedded", "stand_in/tiny")):
                if kind in base["model"]:
                    model = yaml.safe_load((configs / folder / f"{base['model']['paper']}.yaml").read_text())
                    assert (model["name"], model["label"]) == (base["model"][kind], base["label"][kind])
        sources = {
            scale: {own for each in grid.columns_at(scale) if each.measure.lower_is_better
                    for own in each.protocols_at(scale)}
            for scale in ("paper", "small", "tiny")
        }  # fmt: skip
        assert {"gsm8k_test", "humaneval"} <= sources["paper"] < sources["tiny"]
        assert ("codealpaca" in sources["paper"]) == (name != "table1")  # half of it is training data there


def test_the_papers_numbers_are_all_there_with_their_daggers(grid):
    assert len(grid.paper) == 2 * 5 * 6
    assert {key for key, number in grid.paper.items() if number.dagger} == {
        ("llama3", "idlora", "gsm8k"), ("llama3", "idlora", "hexphi"), ("mistral", "idlora", "pass@5"),
        ("mistral", "idlora", "pass@10"), ("mistral", "idlora", "hexphi"),
    }  # fmt: skip
    assert grid.paper["mistral", "hydralora", "pass@1"].value == 33.5


def test_labels_protocols_blocks_and_references_may_differ_by_kind_of_scale_or_method(grids, grid):
    assert (grids["table7"].label("lora_quarter", "paper"), grids["table7"].label("lora_quarter", "tiny")) == (
        "LoRA r=8", "LoRA r=2",
    )  # fmt: skip
    column = dataclasses.replace(grid.columns[0], protocol={"paper": "5shot"})
    assert (column.protocols_at("paper"), column.protocols_at("tiny")) == (["5shot"], [None])
    assert grids["table2"].block("llama3", "small") != grids["table2"].block("llama3", "tiny") == ""
    assert (grids["table7"].reference_of("idlora_double"), grids["table7"].reference_of("lora")) == ("lora", None)
    assert ("idlora", "idlora_random") in grids["table3"].pairs()
    assert grids["table8"].at("small").reference_of("idlora_half_k2") == "idlora_half"
    assert grids["table8"].at("paper").reference_instead == {}
    assert grids["table_controls"].paper == {}


def test_a_scale_has_the_bases_with_a_model_the_methods_with_a_label_and_the_experiments_that_these_need(whole, grids):
    assert whole.at("tiny") == whole.at("paper") == whole.at("paper").at("tiny")
    assert whole.at("paper").experiments == tuple(name for name in whole.experiments if "paper_rate" not in name)
    own = dataclasses.replace(whole, labels=whole.labels | {"dora": {"paper": "DoRA"}}).at("small")
    assert list(own.bases) == ["llama3", "llama3_paper_rate"]
    assert own.experiments == tuple(name for name in whole.experiments if "mistral" not in name)
    assert own.methods == tuple(method for method in whole.methods if method != "dora")
    assert own.pairs() == [pair for pair in whole.pairs() if "dora" not in pair]
    own_rows = {key[1:]: value for key, value in own.paper.items() if key[0] == "llama3_paper_rate"}
    assert own_rows == {key[1:]: value for key, value in own.paper.items() if key[0] == "llama3"} != {}
    with pytest.raises(GridError, match=r"table_longer has no cells at scale=tiny: .* kind of scale small; ask"):
        grids["table_longer"].at("tiny")
    with pytest.raises(GridError, match="subject is 'idlora', which is none of the methods"):
        dataclasses.replace(whole, labels=whole.labels | {"idlora": {"embedded": "its"}}).at("small")


def test_a_grid_of_some_benchmarks_has_their_columns_and_experiments_and_names_the_others_of_its_scale(grid):
    assert grid.showing(None, "tiny") is grid
    own = grid.showing(["gsm8k", "humaneval"], "tiny")
    assert {column.benchmark for column in own.columns} == {"gsm8k", "humaneval"}
    assert own.experiments == ("gsm8k_llama3", "codealpaca_llama3", "gsm8k_mistral", "codealpaca_mistral")
    assert own.notes == (*grid.notes, "Not run for this table: hexphi, hexphi_benign, heldout.")
    assert grid.showing(["gsm8k", "humaneval", "hexphi", "heldout"], "paper").notes == grid.notes
    with pytest.raises(GridError, match="table1 shows nothing of benchmarks=mmlu; it shows gsm8k, humaneval, hexphi"):
        grid.showing(["gsm8k", "mmlu"], "tiny")
    with pytest.raises(GridError, match=r"benchmarks=\[\]"):
        grid.showing([], "tiny")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("reference: lora", "reference: loar", "reference is 'loar'"),
        ("reference: lora", "reference: {idlora: loar}", "reference is 'loar'"),
        ("alpha: 0.05", "alhpa: 0.05", "'alhpa'"),
        ("subject: idlora", "", "subject is None"),
        ("seeds: [0]", "seeds: [1, 1]", "seeds is"),
        ("seeds: [0]", "", "seeds is"),
        ("seeds: [0]", "seeds: [0", "is not YAML"),
        ("experiment: gsm8k_{base}", "experiment: gms8k_{base}", "'gms8k_llama3'"),
        ("idlora: ID-LoRA}", "idlroa: ID-LoRA}", "no word for"),
        ("scales: [embedded]", "scales: [embedded, paper]", "no heading for"),
        ("fft: FFT", "fft: {smal: FFT, paper: FFT}", "labels has the unknown kind of scale 'smal'"),
        ("metric: strict", "metric: strict\n    chance: 25", "column 'gsm8k' has chance=25"),
        (
            "table: table1",
            "include: ../nowhere.yaml\ntable: table1",
            "nowhere.yaml, which cannot be read",
        ),
    ],
)
def test_a_grid_that_does_not_fit_together_is_refused_with_the_part_named(tmp_path, repository, old, new, words):
    folder = shutil.copytree(repository / "experiments" / "table1", tmp_path / "table1")
    plan = (folder / "grid.yaml").read_text()
    assert old in plan
    (folder / "grid.yaml").write_text(plan.replace(old, new, 1))
    with pytest.raises(GridError, match=words):
        load_grid(folder)
