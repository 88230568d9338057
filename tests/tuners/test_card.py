"""The README.md beside a saved adapter tells how to load it, what it is, and what saved it."""

import re
from importlib.metadata import version
from pathlib import Path

import peft.mapping
import pytest
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from tuner_models import OURS, excite, logits, make_adapted, make_base, make_config

import idlora
from idlora.tuners import REGISTRY, IdLoraConfig

every_method = pytest.mark.parametrize("method", OURS)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("base"))
    make_base().save_pretrained(folder)
    return folder


def adapted(method, base, **settings):
    model = AutoModelForCausalLM.from_pretrained(base)
    return excite(make_adapted(method, base=model, **settings)).eval()


def snippet(card: Path, folder: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)
    assert "import idlora" in code
    return code.replace("<this folder or repository>", str(folder))


@every_method
def test_the_card_of_an_adapter_loads_it_and_says_what_it_is(method, base, tmp_path):
    model = adapted(method, base)
    model.save_pretrained(tmp_path)
    names: dict = {}
    exec(snippet(tmp_path / "README.md", tmp_path), names)
    assert torch.equal(logits(names["model"]), logits(model))
    card, config_cls = ModelCard.load(tmp_path / "README.md"), REGISTRY[method].config_cls
    assert card.data.library_name == "peft"
    assert card.data.base_model == base
    assert config_cls.method_name.lower() in card.data.tags
    assert f"https://arxiv.org/abs/{config_cls.paper.arxiv}" in card.text
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert f"| trained parameters of the adapter | {trained:,} |" in card.text
    assert "| r | 4 |" in card.text
    assert "`down_proj`, `gate_proj`" in card.text
    for settings in ("init_weights", "base_fingerprint", "lora_dropout"):
        assert settings not in card.text
    assert f"idlora {idlora.__version__}, peft {version('peft')}, torch {version('torch')}" in card.text
    assert "More Information Needed" not in card.text


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_card_of_a_classifier_loads_a_classifier(base, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(base)
    model = excite(get_peft_model(model, make_config("idlora", task_type="SEQ_CLS"))).eval()
    model.save_pretrained(tmp_path)
    names: dict = {}
    exec(snippet(tmp_path / "README.md", tmp_path), names)
    assert torch.equal(logits(names["model"]), logits(model))
    assert logits(model).shape[-1] == 2


@every_method
def test_without_the_library_each_loader_raises_the_error_that_the_card_names(method, base, tmp_path, monkeypatch):
    adapted(method, base).save_pretrained(tmp_path)
    error = f"KeyError: '{method.upper()}'"
    assert error in (tmp_path / "README.md").read_text(encoding="utf-8")
    monkeypatch.delitem(peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING, REGISTRY[method].peft_type)
    fresh = AutoModelForCausalLM.from_pretrained(base)
    for load in (
        lambda: PeftModel.from_pretrained(fresh, tmp_path),
        lambda: AutoPeftModelForCausalLM.from_pretrained(tmp_path),
        lambda: fresh.load_adapter(str(tmp_path)),
    ):
        with pytest.raises(KeyError) as raised:
            load()
        assert f"KeyError: {raised.value}" == error


def test_a_card_of_the_user_s_own_is_kept_and_saving_again_changes_this_part_alone(base, tmp_path):
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\ntags:\n- sums\n---\n# Sums\n\n<!-- idlora: end -->\nMine.\n", encoding="utf-8")
    for alpha in (8, 16):
        adapted("idlora", base, lora_alpha=alpha, router="uniform", target_modules=".*(q|v)_proj").save_pretrained(
            tmp_path
        )
        text = card.read_text(encoding="utf-8")
        assert f"| lora_alpha | {alpha} |" in text
        assert text.count("| lora_alpha |") == text.count("import idlora  #") == text.count("Mine.") == 1
        assert "| router | `uniform` |" in text
        assert r"| target_modules | `.*(q\|v)_proj` |" in text
        assert "# Sums\n\n<!-- idlora: end -->\nMine.\n" in text
        card.write_text(text + "\nMy last words.\n", encoding="utf-8")
    data = ModelCard.load(card).data
    assert data.license == "mit"
    assert "id-lora" in data.tags
    assert card.read_text(encoding="utf-8").count("My last words.") == 2


@pytest.mark.parametrize("unreadable", [b"---\nlicense: [mit\n---\nMine.\n", b"Caf\xe9.\n"])
def test_a_file_that_is_no_card_is_left_alone_and_costs_no_weights(unreadable, base, tmp_path):
    (tmp_path / "README.md").write_bytes(unreadable)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.add_adapter(make_config("idlora"))
    with pytest.warns(UserWarning, match=r"README\.md"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == unreadable
    assert (tmp_path / "adapter_model.safetensors").exists()


def test_every_saver_writes_the_card_where_the_adapter_lies(base, tmp_path):
    model = adapted("idlora", base)
    model.add_adapter("second", make_config("idlora", lora_alpha=3, alpha_pattern={"(q|k)_proj": 5}))
    model.save_pretrained(tmp_path / "both")
    assert "| lora_alpha | 8 |" in (tmp_path / "both" / "README.md").read_text(encoding="utf-8")
    second = (tmp_path / "both" / "second" / "README.md").read_text(encoding="utf-8")
    assert "| lora_alpha | 3 |" in second
    assert r"| alpha_pattern | `{'(q\|k)_proj': 5}` |" in second, "a bar would end the cell"
    native = AutoModelForCausalLM.from_pretrained(base)
    native.load_adapter(str(tmp_path / "both"))
    native.save_pretrained(tmp_path / "native")
    names: dict = {}
    exec(snippet(tmp_path / "native" / "README.md", tmp_path / "native"), names)
    assert torch.equal(logits(names["model"]), logits(model))
    for config in (IdLoraConfig(), model.peft_config["default"]):
        config.save_pretrained(tmp_path / "config")
    assert model.peft_config["default"].init_weights
    assert [each.name for each in (tmp_path / "config").iterdir()] == ["adapter_config.json"]
