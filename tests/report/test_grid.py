"""experiments/table1 as data: whole, in step with the configs, and refused where its parts do not fit."""

import shutil

import pytest
import yaml

from idlora.report import GridError, load_grid


def test_table_1_asks_for_two_bases_and_six_methods_on_three_tasks(grid):
    assert len(grid.cells()) == 6 * 6
    assert grid.benchmarks("gsm8k_llama3", "tiny") == ["gsm8k"]
    assert grid.benchmarks("saferpaca_mistral", "tiny") == ["hexphi", "hexphi_benign"]
    assert grid.benchmarks("saferpaca_mistral", "paper") == ["hexphi"]
    assert grid.benchmarks("codealpaca_llama3", "tiny") == ["humaneval"]


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
    columns = {column.id for column in grid.columns if not column.beside} | {"params_pct"}
    assert {column for _, _, column in grid.paper} == columns


def test_the_grid_names_the_experiments_methods_and_models_of_the_configs(grid, repository):
    configs = repository / "configs"
    for experiment in grid.experiments:
        assert (configs / "experiment" / f"{experiment}.yaml").is_file()
    for method in grid.methods:
        assert yaml.safe_load((configs / "method" / f"{method}.yaml").read_text())["label"] == grid.labels[method]
    for base in grid.bases.values():
        model = yaml.safe_load((configs / "model" / f"{base['model']['paper']}.yaml").read_text())
        for kind, scale in (("paper", "paper"), ("embedded", "tiny")):
            assert f"{scale}:{base['model'][kind]}" in model["name"]
            assert f"{scale}:{base['label'][kind]}" in model["label"]
    for column in grid.columns:
        assert (configs / "eval" / f"{column.benchmark}.yaml").is_file()


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
        ("seeds: [0]", "seeds: [0", "is not YAML"),
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
