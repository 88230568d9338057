"""The programs in examples/ run, learn, and save adapters that load to the same model."""

import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from byte_tokenizer import VOCABULARY, byte_tokenizer
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FOUR_BITS = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """Folder of a random Llama with two layers and of its tokenizer."""
    folder = str(tmp_path_factory.mktemp("base"))
    torch.manual_seed(0)
    shape = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.1,
    }
    tokens = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    LlamaForCausalLM(LlamaConfig(**shape, **tokens)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def run(example: str, *arguments: object) -> PeftModel:
    return runpy.run_path(str(EXAMPLES / f"{example}.py"))["main"]([*map(str, arguments)])


@torch.no_grad()
def loss(model, batch: torch.Tensor) -> float:
    batch = batch.to(model.device)
    return model.eval()(input_ids=batch, labels=batch).loss.item()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("example", ["trainer", "sft_trainer", "quantized"])
def test_an_example_learns_and_saves_an_adapter_that_loads_to_the_same_model(example, base, tmp_path):
    trained = run(example, "--model", base, "--output", tmp_path, "--steps", 24)
    settings = {"quantization_config": FOUR_BITS} if example == "quantized" else {}
    untrained, fresh = (AutoModelForCausalLM.from_pretrained(base, **settings) for _ in range(2))
    row = json.loads((EXAMPLES / "sums.jsonl").read_text().splitlines()[0])
    batch = byte_tokenizer()(row["completion"], return_tensors="pt")["input_ids"]
    assert loss(trained, batch) < loss(untrained, batch) - 0.05
    assert loss(PeftModel.from_pretrained(fresh, tmp_path), batch) == pytest.approx(loss(trained, batch), rel=1e-4)
    assert "import idlora" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_two_adapters_each_know_their_own_task(base, tmp_path, capsys):
    left = run("several_adapters", "--model", base, "--output", tmp_path, "--steps", 24)
    assert list(left.peft_config) == ["spelling"]
    losses = {
        name: (float(on_sums), float(on_spelling))
        for name, on_sums, on_spelling in re.findall(
            r"(\w+): loss on sums (\S+) loss on spelling (\S+)", capsys.readouterr().out
        )
    }
    assert losses["sums"][0] < losses["base"][0] - 0.05
    assert losses["spelling"][1] < losses["base"][1] - 0.05
    assert losses["sums"][0] < losses["spelling"][0]
    assert losses["spelling"][1] < losses["sums"][1]


def test_the_page_of_the_examples_lists_each_and_no_other():
    listed = re.findall(r"^\| `(\w+\.py)`", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in EXAMPLES.glob("*.py"))
