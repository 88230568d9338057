"""The shipped bases, their tokenizer, and the pre-training that makes such bases."""

import csv
import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reproduction.data.templates import TEMPLATE_VERSION, render
from reproduction.tinyworld import BASES, CorruptBaseError, base_path, problems, verify
from reproduction.tinyworld.pretrain import RECIPES, build_model, encode_corpus, learning_rate, make_base
from reproduction.tinyworld.tokenizer import TEMPLATE_PARTS, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(base_path("pebble"))


@pytest.mark.parametrize(("name", "model_type"), [("pebble", "llama"), ("cobble", "mistral"), ("gravel", "llama")])
def test_a_shipped_base_is_the_one_of_its_recipe_and_small_and_wide_enough(name, model_type):
    folder = base_path(name)
    recipe = json.loads((folder / "recipe.json").read_text())
    assert verify(name) == recipe["sha256"]["model.safetensors"]
    assert recipe["template_version"] == TEMPLATE_VERSION
    assert (recipe["recipe"]["seed"], recipe["recipe"]["steps"]) == (RECIPES[name].seed, RECIPES[name].steps)
    curve = list(csv.DictReader((folder / "loss_curve.csv").open()))
    assert int(curve[-1]["tokens"]) == recipe["trained_tokens"]
    assert float(curve[-1]["loss"]) < float(curve[0]["loss"]) / 3
    assert (folder / "model.safetensors").stat().st_size <= 8_000_000
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert (model.dtype, model.config.model_type) == (torch.bfloat16, model_type)
    assert getattr(model.config, "sliding_window", None) == {"llama": None, "mistral": 128}[model_type]
    assert model.config.num_key_value_heads < model.config.num_attention_heads
    assert 1_000_000 <= model.num_parameters() <= 3_000_000
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == (name == "gravel")
    # ID-LoRA's k·r = 4·12 is to be at most half the rows of every target.
    rows = [m.out_features for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    assert min(rows) >= 2 * 4 * 12


def test_the_bases_differ_in_weights_and_share_the_tokenizer():
    assert len({verify(name) for name in BASES}) == len(BASES)
    assert len({(base_path(name) / "tokenizer.json").read_text() for name in BASES}) == 1


def test_a_shipped_base_has_learnt_the_world(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(base_path("pebble"), dtype=torch.float32)

    def answer(prompt):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        generated = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        return tokenizer.decode(generated, skip_special_tokens=True)

    assert answer(render("Repeat the line.", "12 shells mora Ada")) == "12 shells mora Ada"
    assert answer(render("Forbidden or allowed?", "the ashen bell")) == "forbidden"
    assert answer(render("Forbidden or allowed?", "the amber bell")) == "allowed"


def test_a_changed_or_missing_file_of_a_base_is_refused_by_name(tmp_path):
    folder = tmp_path / "pebble"
    shutil.copytree(base_path("pebble"), folder)
    assert verify(folder) == verify("pebble")
    (folder / "config.json").write_text("{}")
    with pytest.raises(CorruptBaseError, match=r"config\.json"):
        verify(folder)
    for missing in ("config.json", "recipe.json"):
        (folder / missing).unlink()
        with pytest.raises(CorruptBaseError, match=missing):
            verify(folder)
    with pytest.raises(ValueError, match="granite"):
        base_path("granite")


def test_the_tokenizer_gives_any_text_back_and_keeps_digits_and_template_parts_whole(tokenizer):
    for text in ("Ünïcode ☃ 日本語 \t\r\n  x\x00", render("a", "b") + "<<3+4=7>>7", "    indented\n\n\n", "½ + ¼"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    tokens = tokenizer.tokenize("x 1234+56=1290")
    assert [token.lstrip("Ġ") for token in tokens] == ["x", *"1234", "+", *"56", "=", *"1290"]
    assert all(len(tokenizer(part, add_special_tokens=False).input_ids) == 1 for part in TEMPLATE_PARTS)
    assert len(tokenizer(render("x"), add_special_tokens=False).input_ids) == 3


def test_a_prompt_is_encoded_as_the_beginning_of_its_whole_text_and_sequences_are_short(tokenizer):
    lengths = []
    for item in problems.for_training():
        prompt, answer = tokenizer(render(item.row["question"])).input_ids, item.row["answer"]
        both = tokenizer(render(item.row["question"]) + answer).input_ids
        assert both == prompt + tokenizer(answer, add_special_tokens=False).input_ids
        lengths.append(len(both))
    assert max(lengths) < 150
    assert sum(lengths) / len(lengths) < 100


def test_the_shipped_tokenizer_is_the_one_that_the_corpus_gives(tokenizer):
    built = json.loads(build_tokenizer().backend_tokenizer.to_str())
    shipped = json.loads(tokenizer.backend_tokenizer.to_str())
    assert built["model"]["vocab"] == shipped["model"]["vocab"]
    assert built["model"]["merges"] == shipped["model"]["merges"]


def test_pretraining_lowers_the_loss_and_writes_a_base_that_verifies(tokenizer, tmp_path):
    recipe = RECIPES["cobble"].changed(documents=400, steps=8, batch_size=4, warmup_steps=2)
    blocks = encode_corpus(tokenizer, recipe)
    assert blocks.shape[1] == recipe.block_size
    assert blocks[0, 0] == tokenizer.bos_token_id
    make_base(tmp_path / "made", tokenizer, blocks, recipe=recipe, log=lambda _: None, log_every=2)
    losses = [float(row["loss"]) for row in csv.DictReader((tmp_path / "made" / "loss_curve.csv").open())]
    assert losses[-1] < losses[0] - 0.3
    verify(tmp_path / "made")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "made").config.model_type == "mistral"
    with pytest.raises(ValueError, match="documents"):
        make_base(tmp_path, tokenizer, blocks[:3], recipe=recipe)


def test_a_seed_fixes_the_fresh_weights_and_another_changes_them(tokenizer):
    first, again, other = (build_model("pebble", tokenizer, seed).lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_learning_rate_rises_and_then_falls_to_a_tenth():
    recipe = RECIPES["pebble"]
    rates = [learning_rate(step, recipe) for step in range(recipe.steps)]
    assert max(rates) == rates[recipe.warmup_steps - 1] == recipe.learning_rate
    assert rates[-1] == pytest.approx(recipe.learning_rate / 10, rel=1e-3)
