"""experiments/table1 as data: whole, in step with the configs, and refused where its parts do not fit."""

import dataclasses
import shutil

import pytest
import yaml

from reproduction.report import GridError, load_grid
from reproduction.report.measures import PERCENT


def test_table_1_asks_for_two_bases_and_six_methods_on_three_tasks(grid):
    assert len(grid.cells()) == 6 * 6
    assert grid.benchmarks("gsm8k_llama3", "tiny") == ["gsm8k", "heldout"]
    assert grid.benchmarks("saferpaca_mistral", "tiny") == ["hexphi", "hexphi_benign", "heldout"]
    assert grid.benchmarks("saferpaca_mistral", "paper") == ["hexphi"]
    assert grid.benchmarks("codealpaca_llama3", "tiny") == ["humaneval", "heldout"]


def test_every_table_has_columns_of_held_out_loss_at_every_scale_and_of_all_sources_where_rows_are_kept_out(repository):
    for folder in sorted(path.parent for path in (repository / "experiments").glob("*/grid.yaml")):
        grid = load_grid(folder)
        sources = {
            scale: {name for each in grid.columns_at(scale) if each.measure.lower_is_better
                    for name in each.protocols_at(scale)}
            for scale in ("paper", "small", "tiny")
        }  # fmt: skip
        if folder.name == "table1":  # the parts of the stand-in there
            sources["small"] = sources["small"] - {"alpaca", "safety"} | {"saferpaca"}
        assert sources["small"] == sources["tiny"] > sources["paper"] >= {"gsm8k_test", "humaneval"}, folder
        assert ("codealpaca" in sources["paper"]) == (folder.name != "table1")  # half of it is trained on there


def test_the_papers_numbers_are_all_there_with_their_daggers(grid):
    assert len(grid.paper) == 2 * 5 * 6
    daggers = {key for key, number in grid.paper.items() if number.dagger}
    assert daggers == {
        ("llama3", "idlora", "gsm8k"),
        ("llama3", "idlora", "hexphi"),
        ("mistral", "idlora", "pass@5"),
        ("mistral", "idlora", "pass@10"),
        ("mistral", "idlora", "hexphi"),
    }
    assert grid.paper["mistral", "hydralora", "pass@1"].value == 33.5
    columns = {column.id for column in grid.columns_at("paper") if not column.beside and column.measure is PERCENT}
    assert {column for _, _, column in grid.paper} == columns | {"params_pct"}


def test_the_grid_names_the_experiments_methods_and_models_of_the_configs(grid, repository):
    configs = repository / "configs"
    for experiment in grid.experiments:
        assert (configs / "experiment" / f"{experiment}.yaml").is_file()
    for method in grid.methods:
        label = yaml.safe_load((configs / "method" / f"{method}.yaml").read_text())["label"]
        assert label == grid.label(method, "tiny") == grid.label(method, "paper")
    for base in grid.bases.values():
        for kind, folder in (("paper", "model"), ("embedded", "stand_in/tiny")):
            model = yaml.safe_load((configs / folder / f"{base['model']['paper']}.yaml").read_text())
            assert (model["name"], model["label"]) == (base["model"][kind], base["label"][kind])


def test_every_grid_asks_for_configs_that_exist_and_has_the_papers_rows(repository):
    configs = repository / "configs"
    for folder in sorted(path.parent for path in (repository / "experiments").glob("*/grid.yaml")):
        grid = load_grid(folder)
        assert grid.table == folder.name
        for kind, names in (
            ("experiment", grid.experiments),
            ("method", grid.methods),
            ("eval", {column.benchmark for column in grid.columns}),
            (
                "model",
                {name for base in grid.bases.values() for kind, name in base["model"].items() if kind != "embedded"},
            ),
        ):
            assert not [name for name in names if not (configs / kind / f"{name}.yaml").is_file()], folder
        assert {method for _, method, _ in grid.paper} <= set(grid.methods)
        assert {base for base, _, _ in grid.paper} <= set(grid.bases)
        shown = {each.id for each in grid.columns_at("paper") if not each.beside and each.measure is PERCENT}
        assert not grid.paper or shown == {column for _, _, column in grid.paper} - {"params_pct"}
        assert "base" in grid.methods
        assert (folder / "README.md").is_file()


def test_tables_share_their_cells_by_name(repository):
    grids = {each: load_grid(repository / "experiments" / each) for each in ("table2", "table3", "table7", "table8")}
    assert ("multitask_llama3", "lora", 0) in set(grids["table2"].cells()) & set(grids["table7"].cells())
    assert ("multitask_llama3_2_3b", "idlora", 0) in set(grids["table3"].cells()) & set(grids["table8"].cells())


def test_a_label_and_a_protocol_may_differ_by_kind_of_scale(repository, grid):
    table7 = load_grid(repository / "experiments" / "table7")
    assert table7.label("lora_quarter", "paper") == "LoRA r=8"
    assert table7.label("lora_quarter", "tiny") == "LoRA r=2"
    column = dataclasses.replace(grid.columns[0], protocol={"paper": "5shot"})
    assert (column.protocols_at("paper"), column.protocols_at("tiny")) == (["5shot"], [None])
    assert dataclasses.replace(column, protocol="0shot").protocols_at("tiny") == ["0shot"]


def test_a_scale_has_the_bases_with_a_model_the_methods_with_a_label_and_the_experiments_that_these_need(whole):
    grid = whole
    assert grid.at("tiny") == grid.at("paper") == grid.at("paper").at("tiny")
    assert grid.at("paper").experiments == tuple(name for name in grid.experiments if "paper_rate" not in name)
    own = dataclasses.replace(grid, labels=grid.labels | {"dora": {"paper": "DoRA"}}).at("small")
    assert list(own.bases) == ["llama3", "llama3_paper_rate"]
    assert own.experiments == tuple(name for name in grid.experiments if "mistral" not in name)
    assert own.methods == tuple(method for method in grid.methods if method != "dora")
    assert own.pairs() == [pair for pair in grid.pairs() if "dora" not in pair]
    assert own.at("small") == own
    mistrals = [dataclasses.replace(column, experiment="gsm8k_mistral") for column in grid.columns]
    assert dataclasses.replace(grid, columns=tuple(mistrals)).at("small").experiments == grid.experiments
    small = dataclasses.replace(own, bases={"llama3": {key: {"small": "its"} for key in ("model", "label")}})
    with pytest.raises(GridError, match=r"table1 has no cells at scale=tiny: .* kind of scale small; ask"):
        small.at("tiny")


def test_a_method_leaves_a_scale_with_its_pair_and_neither_reference_nor_subject_ever_does(grid, repository):
    table7 = load_grid(repository / "experiments" / "table7")
    without = {method: {"embedded": "its"} for method in ("idlora_double", "lora")}
    own = dataclasses.replace(table7, labels=table7.labels | without).at("small")
    assert own.pairs() == table7.pairs()[:3]
    with pytest.raises(GridError, match="reference is 'lora', which is none of the methods"):
        dataclasses.replace(table7, labels=table7.labels | {"lora": {"embedded": "its"}}).at("small")
    with pytest.raises(GridError, match="subject is 'idlora', which is none of the methods"):
        dataclasses.replace(grid, labels=grid.labels | {"idlora": {"embedded": "its"}}).at("small")


def test_a_method_may_have_another_reference_than_the_others_where_the_scale_has_both(repository):
    table8 = load_grid(repository / "experiments" / "table8")
    own = table8.at("small")
    assert own.reference_of("idlora_half_k2") == "idlora_half"
    assert own.reference_of("idlora_half") == own.reference_of("idlora_k2") == table8.reference
    assert table8.at("paper").reference_instead == {}
    labels = table8.labels | {"idlora_half": {"paper": "its"}}
    with pytest.raises(GridError, match="reference_instead is 'idlora_half', which is none of the methods"):
        dataclasses.replace(table8, labels=labels).at("small")


def test_a_grid_of_some_benchmarks_has_their_columns_and_experiments_and_names_the_others_of_its_scale(grid):
    assert grid.showing(None, "tiny") is grid
    own = grid.showing(["gsm8k", "humaneval"], "tiny")
    assert {column.benchmark for column in own.columns} == {"gsm8k", "humaneval"}
    assert own.experiments == ("gsm8k_llama3", "codealpaca_llama3", "gsm8k_mistral", "codealpaca_mistral")
    assert own.notes == (*grid.notes, "Not run for this table: hexphi, hexphi_benign, heldout.")
    assert grid.showing(["gsm8k", "humaneval"], "paper").notes[-1] == "Not run for this table: hexphi, heldout."
    assert grid.showing(["heldout"], "tiny").experiments == grid.experiments
    assert grid.showing(["gsm8k", "humaneval", "hexphi", "heldout"], "paper").notes == grid.notes
    with pytest.raises(GridError, match="table1 shows nothing of benchmarks=mmlu; it shows gsm8k, humaneval, hexphi"):
        grid.showing(["gsm8k", "mmlu"], "tiny")


def test_pairs_have_a_reference_each_and_the_others_are_not_tested(repository):
    table7 = load_grid(repository / "experiments" / "table7")
    assert table7.reference_of("idlora_double") == "lora"
    assert table7.reference_of("lora") is None
    assert len(table7.pairs()) == 4
    table3 = load_grid(repository / "experiments" / "table3")
    assert (table3.reference_of("idlora"), table3.reference_of("lora")) == ("lora", None)
    assert ("idlora", "idlora_random") in table3.pairs()


def test_a_table_of_our_own_has_no_numbers_of_the_papers(repository):
    assert load_grid(repository / "experiments" / "table_controls").paper == {}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("reference: lora", "reference: loar", "reference is 'loar'"),
        ("alpha: 0.05", "alhpa: 0.05", "unknown key alhpa"),
        ("seeds: [0]", "seeds: []", "seeds is"),
        ("seeds: [0]", "seeds: [1, 1]", "seeds is"),
        ("seeds: [0]", "", "lacks seeds"),
        ("experiment: gsm8k_{base}", "experiment: gms8k_{base}", "'gms8k_llama3'"),
        ("idlora: ID-LoRA}", "idlroa: ID-LoRA}", "no word for"),
        ("scales: [embedded]", "scales: [embedded, paper]", "no heading for"),
        ("small: smollm2_135m, ", "", r"a model or a label alone for \['llama3'\] \(small\)"),
        ("fft: FFT", "fft: {smal: FFT, paper: FFT}", "labels has the unknown kind of scale 'smal'"),
        ("block: {small: each", "block: {smal: each", "bases has the unknown kind of scale 'smal'"),
        ("bases:\n  llama3:", "bases:\n  llama3:\n    like: llama4", "one that is like 'llama4', which is none of"),
        ("seeds: [0]", "seeds: [0", "is not YAML"),
        ("subject: idlora", "", "subject is None"),
        ("reference: lora", "reference: {idlora: loar}", "reference is 'loar'"),
        ("    metric: pass@5", "    metric: pass@5\n    protocol: raw_t0.2", "some name a protocol and some do not"),
        (
            "metric: strict",
            "metric: strict\n    chance: 25",
            "column 'gsm8k' has chance=25; of a score it is a fraction",
        ),
        ("metric: nats_per_token", "metric: nats_per_token\n    chance: 0.25", "chance=0.25.* and a loss has none"),
        ("table: table1", "include: ../nowhere.yaml\ntable: table1", "nowhere.yaml, which cannot be read"),
    ],
)
def test_a_grid_that_does_not_fit_together_is_refused_with_the_part_named(tmp_path, repository, old, new, said):
    folder = tmp_path / "table1"
    shutil.copytree(repository / "experiments" / "table1", folder)
    load_grid(folder)
    plan = (folder / "grid.yaml").read_text()
    assert old in plan
    (folder / "grid.yaml").write_text(plan.replace(old, new, 1))
    with pytest.raises(GridError, match=said):
        load_grid(folder)


def test_a_table_that_does_not_exist_is_one_sentence(tmp_path):
    with pytest.raises(GridError, match=r"needs .*grid\.yaml, which cannot be read: No such file"):
        load_grid(tmp_path)
