"""configs/method: every file gives an adapter of the documented size at both scales, without weights."""

import dataclasses
import functools

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from idlora.tuners import REGISTRY
from reproduction.cells.compose import compose, plain
from reproduction.cells.config_schema import parse_dataclass
from reproduction.cells.from_config import compose_cell
from reproduction.paths import CONFIGS, RESULTS
from reproduction.report.documents import read_csv
from reproduction.training import MethodSpec, build_adapted, count_parameters

METHODS = sorted(path.stem for path in (CONFIGS / "method").glob("*.yaml"))
PEFT = [name for name in METHODS if name not in ("base", "fft")]
LLAMA3_2_3B = LlamaConfig(
    vocab_size=128256, hidden_size=3072, intermediate_size=8192, num_hidden_layers=28,
    num_attention_heads=24, num_key_value_heads=8, tie_word_embeddings=True,
)  # fmt: skip
TINY = LlamaConfig(
    vocab_size=512, hidden_size=192, intermediate_size=384, num_hidden_layers=4,
    num_attention_heads=6, num_key_value_heads=3, tie_word_embeddings=True,
)  # fmt: skip
SHAPES = {"paper": LLAMA3_2_3B, "tiny": TINY}
MODELS = {"paper": ("paper", "llama3_2_3b"), "tiny": ("tiny", "gravel")}
"""Scale and model in results/counts/counts.csv of each shape."""


@functools.cache
def spec(method: str, scale: str) -> MethodSpec:
    config = compose("train", [f"method={method}", f"scale={scale}", "experiment=gsm8k_llama3", "seed=3"])
    values = plain(config.method)
    values.pop("paper_learning_rate", None)
    return parse_dataclass(MethodSpec, values, where="method")


@functools.cache
def counts(method: str, scale: str) -> dict[str, int]:
    with torch.device("meta"):
        base = LlamaForCausalLM(SHAPES[scale])
    return count_parameters(build_adapted(base, spec(method, scale), 0))


def trainable(method: str, scale: str) -> int:
    return counts(method, scale)["parameters_trainable"]


def test_every_file_makes_the_method_that_it_is_named_after_with_a_label_of_its_own():
    found = {method: spec(method, "tiny") for method in METHODS}
    assert [each.name for each in found.values()] == METHODS
    assert len({each.label for each in found.values()}) == len(METHODS)
    for method in PEFT:
        assert trainable(method, "tiny") > 0
    assert found["idlora"].arguments["seed"] == found["vera"].arguments["projection_prng_key"] == 3


@pytest.mark.parametrize("scale", SHAPES)
def test_the_sizes_are_the_committed_ones_and_alpha_is_twice_the_rank(scale):
    rows = [row for row in read_csv(RESULTS / "counts/counts.csv") if (row["scale"], row["model"]) == MODELS[scale]]
    assert len(rows) > 10
    for row in rows:
        arguments = spec(row["method"], scale).arguments
        assert trainable(row["method"], scale) == int(row["trainable"]), row
        assert arguments.get("lora_alpha") in (None, 2 * arguments.get("r", 0)), row


def test_the_methods_of_this_project_train_their_closed_form():
    own = [method for method in PEFT if spec(method, "tiny").peft_type.lower() in REGISTRY]
    assert own
    for method in own:
        asked = spec(method, "tiny")
        config = REGISTRY[asked.peft_type.lower()].config_cls(**asked.arguments)
        forms = (config.trainable_parameters(layer.in_features, layer.out_features) for layer in linears("tiny"))
        assert trainable(method, "tiny") == sum(forms), method


@pytest.mark.parametrize("scale", SHAPES)
def test_a_control_of_the_rows_trains_as_much_as_idlora(scale):
    controls = ("serial", "random", "pivoted_qr", "smallest_norm", "largest_norm", "no_rb", "gaussian", "orthonormal")
    assert {trainable(f"idlora_{name}", scale) for name in (*controls, "equal_norm")} == {trainable("idlora", scale)}


@functools.cache
def linears(scale: str) -> list[torch.nn.Linear]:
    with torch.device("meta"):
        base = LlamaForCausalLM(SHAPES[scale])
    return [layer for name, layer in base.model.named_modules() if isinstance(layer, torch.nn.Linear)]


@pytest.mark.parametrize("scale", SHAPES)
def test_the_ranks_of_the_matched_baselines_are_the_nearest_that_there_are(scale):
    """Check LoRA and LoRA-FA against ID-LoRA's trained count, LoRA also with the copies, VeRA as in its file."""
    rows, columns = (sum(getattr(layer, f"{side}_features") for layer in linears(scale)) for side in ("out", "in"))
    aim = counts("idlora", scale)
    budget = aim["parameters_trainable"] + aim["frozen_copies"]
    assert spec("lora_fa", scale).arguments["r"] == round(aim["parameters_trainable"] / rows)
    assert spec("lora_equal", scale).arguments["r"] == round(aim["parameters_trainable"] / (rows + columns))
    assert spec("lora_counted", scale).arguments["r"] == budget // (rows + columns)
    vera = (aim["parameters_trainable"] - rows) // len(linears(scale))
    assert vera == {"tiny": spec("vera", "tiny").arguments["r"], "paper": 137_654}[scale]


@pytest.mark.parametrize("scale", SHAPES)
def test_no_method_asks_for_more_rows_than_there_are_and_some_for_all(scale):
    shares = {}
    fewest = min(layer.out_features for layer in linears(scale))
    for method in PEFT:
        arguments = spec(method, scale).arguments
        if "num_clusters" in arguments:
            shares[method] = arguments["num_clusters"] * arguments["r"] / fewest
    assert max(shares.values()) == 1
    assert {method for method, share in shares.items() if share == 1} >= {"idlora_k8", "idlora_double"}


@pytest.mark.parametrize("scale", SHAPES)
def test_the_controls_of_rank_boosting_differ_in_it_alone(scale):
    arguments, rows = spec("idlora", scale).arguments, sum(layer.out_features for layer in linears(scale))
    assert spec("idlora_s4", scale).arguments == {**arguments, "rank_boost": 4}
    assert spec("idlora_no_rb_same_rank", scale).arguments == {**arguments, "rank_boost": 1}
    more = trainable("idlora_no_rb_same_rank", scale) - trainable("idlora", scale)
    assert more == 3 * rows * arguments["r"] // 4  # B is four times as large


def test_lora_with_long_rows_is_lora_but_for_where_a_starts():
    long, plain = spec("lora_long_rows", "tiny"), spec("lora", "tiny")
    assert long.long_rows == ("lora_A",)
    assert dataclasses.replace(long, name=plain.name, label=plain.label, long_rows=()) == plain


def test_long_rows_make_another_run_and_a_method_without_them_keeps_the_name_of_its_run(repository):
    cell = compose_cell("multitask_llama3_2_3b", "idlora", scale="tiny", seed=0)
    assert cell.run.folder.name in (repository / "results/reference/tiny/metrics.csv").read_text()
    long = dataclasses.replace(cell, method=dataclasses.replace(cell.method, long_rows=("router",)))
    assert long.config["method"]["long_rows"] == ("router",)
    assert long.run.folder.name != cell.run.folder.name
