"""The small scale: one pre-trained model in place of the paper's three, other settings as in the paper."""

import csv
import json
import math
from pathlib import Path

import pytest
from committed_tables import committed_grids
from omegaconf import OmegaConf

from reproduction import tinyworld
from reproduction.cells.cell import Cell
from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import parse_dataclass
from reproduction.cells.from_config import compose_cell, eval_job_from_config
from reproduction.cells.resolve_paths import locate_model
from reproduction.cells.sizes import Kind, kinds_of
from reproduction.commands.counts import count, count_on
from reproduction.paths import CONFIGS
from reproduction.preflight.fits import misfits
from reproduction.running.train import train_cell
from reproduction.training.spec import MethodSpec, ModelSpec

GRIDS = [grid.at("small") for grid in committed_grids("small")]
SIZE = 134_515_008
"""Published parameter count of SmolLM2-135M-Instruct."""

ROWS = 192
"""Rows of its k and v projections."""

OTHERS = {"qwen2_5_0_5b": (494_032_768, 128, True), "smollm2_360m": (361_821_120, 320, False)}
"""Alternative models: published parameter count, rows of k and v, whether q, k and v have biases."""

RATE = "train.learning_rate=1.0e-3"
"""Rate used instead of the tuned rates, which these tests do not cover."""

GPU = 24e9

LONGER, PAPER_RATE = "multitask_llama3_full", "multitask_llama3_paper_rate"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Cell]:
    """Return cells of the tables at the small scale that cover each method and each experiment."""
    more = [f"results_dir={tmp_path_factory.mktemp('small')}", RATE]
    pairs = [(experiment, method) for grid in GRIDS for experiment, method, _ in grid.cells()]
    fewest = {method: (experiment, method) for experiment, method in pairs}
    fewest |= {experiment: (experiment, method) for experiment, method in pairs}
    return {
        (e, m): compose_cell(e, m, scale="small", seed=0, overrides=more) for e, m in dict.fromkeys(fewest.values())
    }


@pytest.fixture(scope="module")
def methods(cells) -> dict[str, MethodSpec]:
    """Return every method of configs/method at the small scale; one without a table is composed separately."""
    found = {method: cell.method for (_, method), cell in cells.items()}
    for name in sorted({path.stem for path in (CONFIGS / "method").glob("*.yaml")} - found.keys()):
        found[name] = compose_cell("multitask_llama3", name, scale="small", seed=0, overrides=[RATE]).method
    return found


@pytest.fixture(scope="module")
def kinds(cells) -> list[Kind]:
    return kinds_of(cells.values())


def test_every_method_of_every_table_fits_the_models_that_stand_in(kinds, cells, tmp_path: Path) -> None:
    assert list(misfits(kinds)) == []
    assert all(kind.body is not None for kind in kinds)
    assert sum(len(kind.cells) for kind in kinds) == len(cells)
    rows = [f"results_dir={tmp_path}", RATE, "method.arguments.r=64"]
    too_many = compose_cell("multitask_llama3", "idlora", scale="small", seed=0, overrides=rows)
    (told,) = misfits(kinds_of([too_many]))
    assert "SmolLM2-135M-Instruct" in told
    assert "k_proj has 192 rows" in told


def test_every_cell_is_estimated_to_fit_a_gpu_of_24_gb(kinds) -> None:
    for kind in kinds:
        assert kind.inference().total < GPU, kind.title
        if kind.trains:
            assert kind.fitting(GPU) is not None, kind.title


def test_a_cell_has_the_hubs_data_whole_and_few_steps_at_a_tuned_rate_unless_its_table_is_of_longer_training(
    cells,
) -> None:
    for (experiment, _), cell in cells.items():
        assert cell.data_root is None
        assert cell.data.limit is None
        if experiment == LONGER:
            assert (cell.train.max_steps, cell.train.epochs) == (None, 2)
        else:
            assert cell.train.max_steps == (200 if experiment.startswith("multitask") else 100)
        assert (cell.train.batch_size, cell.data.max_length) == (32, 512)
        limits = {"heldout": 400, "safety_prompts": 200, "harmless_prompts": 200}
        assert all(protocol.limit == limits.get(protocol.benchmark) for protocol in cell.protocols)
        assert not {"hexphi", "hexphi_benign"} & {protocol.benchmark for protocol in cell.protocols}
    assert plain(compose("train", ["experiment=saferpaca_llama3", "scale=small"]).train)["learning_rate"] == "tuned"
    asked = {
        (experiment, scale): compose_cell(experiment, "fft", scale=scale, seed=0, overrides=["hparams=paper"])
        for experiment in ("gsm8k_llama3", "saferpaca_llama3") for scale in ("small", "paper")
    }  # fmt: skip
    for experiment in ("gsm8k_llama3", "saferpaca_llama3"):
        assert asked[experiment, "small"].train.learning_rate == asked[experiment, "paper"].train.learning_rate


def test_every_table_has_the_experiments_of_one_base_and_tables_1_and_2_that_base_at_the_papers_rate_too() -> None:
    for grid in GRIDS:
        for words in grid.bases.values():
            assert (words["model"]["small"], words["label"]["small"]) == ("smollm2_135m", "SmolLM2-135M-Instruct")
    of = {grid.table: grid.experiments for grid in GRIDS if len(grid.bases) > 1}
    single = [f"{task}_llama3" for task in ("gsm8k", "codealpaca", "saferpaca")]
    assert of == {
        "table1": (*single, *(f"{each}_paper_rate" for each in single)),
        "table2": ("multitask_llama3", PAPER_RATE),
    }


def test_a_block_at_the_papers_rate_has_it_for_every_method_and_else_the_cells_of_the_other_block() -> None:
    for task, method in (("multitask", "fft"), ("gsm8k", "idlora"), ("saferpaca", "fft"), ("codealpaca", "idlora")):
        papers = compose_cell(f"{task}_llama3", "idlora", scale="paper", seed=0).train.learning_rate
        block, other = (
            compose_cell(f"{task}_llama3{rate}", method, scale="small", seed=1, overrides=more)
            for rate, more in (("_paper_rate", []), ("", [f"train.learning_rate={papers}"]))
        )
        assert block.train.learning_rate == papers
        assert block.run.name == other.run.name
    names = {  # tables on different bases of the paper share their runs
        compose_cell(f"multitask_{base}", "idlora", scale="small", seed=0, overrides=[RATE]).run.name
        for base in ("llama3", "llama3_2_3b")
    }
    assert len(names) == 1


def shape_of(*overrides: str) -> ModelSpec:
    model = plain(compose("train", [*overrides, RATE, "experiment=multitask_llama3", "scale=small"]).model)
    return parse_dataclass(ModelSpec, locate_model({**model, "init": "random"}), where="model")


def test_the_shapes_have_their_models_published_sizes_and_biases_where_they_have_them(methods) -> None:
    import torch

    from reproduction.training import build_model

    wanted = {"smollm2_135m": (SIZE, ROWS, False)} | OTHERS
    for name, (size, rows, biased) in wanted.items():
        shape = shape_of() if name == "smollm2_135m" else shape_of(f"stand_in={name}")
        assert shape.name == name
        assert count_on(shape, methods["base"]).base_parameters == size
        with torch.device("meta"):
            layer = build_model(shape).model.layers[0].self_attn
        assert layer.k_proj.out_features == rows
        assert all((each.bias is not None) == biased for each in (layer.q_proj, layer.k_proj, layer.v_proj))
        assert layer.o_proj.bias is None


@pytest.mark.parametrize("name", OTHERS)
def test_another_model_stands_in_with_ranks_that_fit_it(name: str, tmp_path: Path) -> None:
    own = [f"results_dir={tmp_path}", f"stand_in={name}", "hparams=paper"]
    found = [compose_cell("multitask_llama3", method, scale="small", seed=0, overrides=own)
             for method in ("idlora", "idlora_k8", "idlora_double", "lora", "lora_equal", "hydralora")]  # fmt: skip
    assert {cell.model.name for cell in found} == {name}
    assert [cell.method.arguments["r"] for cell in found] == [16, 16, 32, 7, 4, 3]
    idlora, equal = (count_on(shape_of(f"stand_in={name}"), found[at].method).parameters_trainable for at in (0, 4))
    assert equal == pytest.approx(idlora, rel=0.02)
    assert list(misfits(kinds_of(found))) == []
    assert {cell.train.max_steps for cell in found} == {200}


def trained(method: str, rank: int | None = None) -> int:
    return count("llama3", method, scale="small", rank=rank).parameters_trainable


def test_the_counts_of_the_methods_stand_to_each_other_as_in_the_paper(methods) -> None:
    assert trained("idlora") == trained("idlora_no_rb") == 1_843_200
    assert trained("idlora") / trained("lora") == pytest.approx(0.6, abs=0.005)
    assert trained("lora_quarter") == trained("idlora_half")
    assert trained("lora_half") == pytest.approx(trained("idlora"), rel=0.01)


def test_alpha_is_twice_the_rank_and_labels_tell_the_methods_apart(methods) -> None:
    assert len({method.label for method in methods.values()}) == len(methods)
    for method in methods.values():
        if "lora_alpha" in method.arguments:
            assert method.arguments["lora_alpha"] == 2 * method.arguments["r"], method.name


def test_the_committed_counts_have_every_method_of_the_tables(repository: Path) -> None:
    with (repository / "results" / "counts" / "counts.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["scale"] == "small"]
    committed = {row["method"]: int(row["trainable"]) for row in rows if row["model"] == "smollm2_135m"}
    assert committed.keys() == {method for grid in GRIDS for method in grid.methods}
    assert len(rows) == len(committed)
    for method in ("base", "lora", "idlora"):
        assert committed[method] == trained(method)


def test_a_value_by_scale_is_the_models_own_then_the_scales_then_that_of_the_scale_it_is_like() -> None:
    def resolved(choices: str, *asked: str) -> object:
        config = compose("train", asked)
        return OmegaConf.merge(config, {"seed": f"${{by_scale:{choices}}}"}).seed

    own = "{qwen2_5_0_5b:1,small:2,paper:3}"
    for value, *asked in (
        (2, "scale=small"), (1, "scale=small", "stand_in=qwen2_5_0_5b"), (1, "scale=small", "model=qwen2_5_0_5b"),
        (2, "scale=small", "stand_in=qwen2_5_0_5b", "model.name=mine"),
    ):  # fmt: skip
        assert resolved(own, *asked) == value
    assert resolved("{paper:1,tiny:3}", "scale=small") == 1
    assert resolved("{paper:1,small:null}", "scale=small") is None
    for scale, choices in (("small", "{tiny:3}"), ("tiny", "{paper:1,small:2}"), ("paper", "{small:2,tiny:3}")):
        with pytest.raises(Exception, match=f"scale={scale}"):
            resolved(choices, f"scale={scale}")


def test_weights_that_train_are_in_32_bits_and_frozen_ones_in_16(cells) -> None:
    for (_, method), cell in cells.items():
        assert cell.model.dtype == ("float32" if method == "fft" else "bfloat16")
    assert compose("evaluate", ["model=smollm2_135m", "scale=small"]).model.dtype == "bfloat16"


@pytest.mark.parametrize("method", ["lora", "idlora"])
def test_two_layers_of_the_model_train_and_are_found_again(method: str, tmp_path: Path) -> None:
    """Use random weights of SmolLM2-135M's widths with a small vocabulary."""
    overrides = [
        f"results_dir={tmp_path}", f"data_root={tinyworld.export(tmp_path / 'data')}", "model.init=random",
        "model.shape.num_hidden_layers=2", "model.shape.vocab_size=2048", "threads=1",
        f"++model.tokenizer={tinyworld.base_path('pebble')}", "data.limit=16",
        "train.batch_size=2", "train.max_steps=2", "train.learning_rate=0.01",
    ]  # fmt: skip
    cell = compose_cell("gsm8k_llama3", method, scale="small", seed=0, overrides=overrides)
    train_cell(cell)
    assert cell.run.done
    losses = [json.loads(line)["loss"] for line in (cell.run.folder / "train_log.jsonl").open()]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    assert cell.run.resources["parameters_trainable"] * 15 == trained(method)  # 2 of 30 layers
    subject = eval_job_from_config(compose("evaluate", [f"run={cell.run.folder}", f"data_root={tmp_path / 'data'}"]))
    assert subject.batch_size == 256
    assert [protocol.max_new_tokens for protocol in subject.protocols] == [256, None, None]
    assert subject.load()[0].config.num_hidden_layers == 2
