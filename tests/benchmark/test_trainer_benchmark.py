"""scripts/benchmark.py suite=trainer from the command line on small shapes: the trainer and a plain loop."""

import csv
import json
from pathlib import Path

import forks
import pytest
from byte_tokenizer import byte_tokenizer

from reproduction.benchmark import training
from reproduction.benchmark.training import AGAIN, OURS, PLAIN, drawn_examples, plain_loop
from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.commands.trainer_benchmark import trainer_scenarios
from reproduction.training import MethodSpec, ModelSpec, TrainSpec, build_adapted, build_model, train

SMALL = "{model_type: llama, vocab_size: 300, hidden_size: 32, intermediate_size: 64, num_attention_heads: 4, "
SMALL += "num_key_value_heads: 2}"
ASKED = (
    "suite=trainer", "scenarios=[smollm2_135m]", "methods=[lora,full]", "suite.train.batch_size=4", "suite.dropout=0",
    "suite.trainer.smollm2_135m.steps=6", "suite.trainer.smollm2_135m.plain_steps=5",
    "suite.trainer.smollm2_135m.layers=2", "suite.trainer.smollm2_135m.model.dtype=float32",
    f"suite.trainer.smollm2_135m.model.shape={SMALL}",
)  # fmt: skip


@pytest.fixture(scope="module")
def written(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    asked = [part.replace("full", "fft") for part in ASKED]
    script = repository / "scripts" / "benchmark.py"
    done = forks.start(script, [*asked, f"results_dir={results}"], folder=results).end()
    assert done.returncode == 0, done.stderr
    assert "LoRA, trainer (padded): " in done.stdout
    return results / "cpu"


def test_each_method_is_trained_by_the_loop_by_the_trainer_and_by_the_loop_again(written: Path) -> None:
    with (written / "trainer.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["loop"]) for row in rows] == [
        (method, loop) for method in ("LoRA", "FFT") for loop in (PLAIN, OURS, AGAIN)
    ]
    for row in rows:
        assert float(row["tokens_per_second"]) > 0
        fastest = max(
            float(each["tokens_per_second"])
            for each in rows
            if each["method"] == row["method"] and each["loop"] != OURS
        )
        assert float(row["ratio"]) == pytest.approx(float(row["tokens_per_second"]) / fastest, rel=1e-4)
    assert "| SmolLM2-135M | LoRA | trainer | padded |" in (written / "trainer.md").read_text()
    command = json.loads((written / "trainer.json").read_text())["command"]
    assert command.partition("/scripts/")[2].startswith("benchmark.py suite=trainer")


def test_both_train_on_the_same_rows_to_the_same_loss(tmp_path: Path) -> None:
    shape = {"model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    spec = ModelSpec(name="small", label="small", path_or_id="none", init="random", shape=shape)
    lora = MethodSpec(
        name="lora", label="LoRA", kind="peft", peft_type="LORA", arguments={"r": 4, "target_modules": ["down_proj"]}
    )
    rows = drawn_examples(4, vocabulary=300, longest=64)
    schedule = TrainSpec(learning_rate=0.3, epochs=4, batch_size=4, max_steps=4, lr_scheduler="constant")
    losses = [
        loss for _, loss in plain_loop(build_adapted(build_model(spec), lora, 0), rows.rows, train=schedule, steps=4)
    ]
    train(
        model=build_adapted(build_model(spec), lora, 0), tokenizer=byte_tokenizer(), tokenized=rows, spec=schedule,
        base=spec, folder=tmp_path,
    )  # fmt: skip
    ours = [json.loads(line)["loss"] for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert losses == pytest.approx(ours, rel=1e-4)
    assert losses[-1] < losses[0] - 0.01


def test_the_first_steps_are_left_out_of_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    (scenario, *_) = trainer_scenarios(compose("benchmark", ["suite=trainer", *ASKED[1:2], *ASKED[3:]]))
    monkeypatch.setattr(training, "plain_loop", lambda *_, **__: iter([(9.0, 1.0)] * 3 + [(1.0, 1.0)] * 5))
    rows = drawn_examples(8, vocabulary=300, longest=64)
    assert rows.rows[:5] == drawn_examples(5, vocabulary=300, longest=64).rows
    row = training.measured(scenario, scenario.methods[0], PLAIN, tokenized=rows, tokenizer=None, device="cpu")
    assert (row.step_seconds_median, row.step_seconds_iqr, row.steps) == (1.0, 0.0, 8)
    each = sum(len(example["input_ids"]) for example in rows.rows) / 8
    assert row.tokens_per_second == pytest.approx(4 * each)


def test_what_the_suite_does_not_have_is_refused() -> None:
    def scenarios(*asked: str):
        return trainer_scenarios(compose("benchmark", ["suite=trainer", *asked]))

    assert [each.model.shape["num_hidden_layers"] for each in scenarios()] == [30, 8, 8, 8]
    assert {each.train.batch_size for each in scenarios()} == {32}
    with pytest.raises(ConfigError, match="nonsense"):
        scenarios("scenarios=[nonsense]")
    with pytest.raises(ConfigError, match="steps=4"):
        scenarios("suite.trainer.mistral_7b.steps=4")
