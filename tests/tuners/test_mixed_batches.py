"""Inference on a batch whose rows have different adapters: `adapter_names` of `forward` and `generate`."""

import pytest
import torch
from peft import get_peft_model
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration
from tuner_models import LAYOUTS, OURS, VOCABULARY, excite, logits, make_adapted, make_batch, make_config

from idlora.tuners.common.layer import RoutedLayer

CLOSE = 1e-4  # a product of fewer rows rounds otherwise

NAMES = ["second", "__base__", "default", "second"]
GREEDY = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
every_layout = pytest.mark.parametrize("layout", [*LAYOUTS, "lora"])
every_method = pytest.mark.parametrize("method", OURS)


def two_adapters(layout, *, second=None, **settings):
    """Return a model with two excited adapters; the second targets fewer modules."""
    model = excite(make_adapted(layout, **settings), size=0.6)
    model.add_adapter("second", make_config(layout, **{"target_modules": ["q_proj", "up_proj"]} | (second or {})))
    model.set_adapter("second")
    return excite(model, seed=5, size=0.6)


def alone(model, name, compute):
    """Compute with one adapter for the whole batch."""
    if name == "__base__":
        with model.disable_adapter():
            return compute()
    model.set_adapter(name)
    return compute()


def each_alone(model, compute, *, copies=1):
    """Return the rows of a batch computed with one adapter at a time, from the results of whole batches."""
    whole = {name: alone(model, name, compute) for name in dict.fromkeys(NAMES)}
    assert all((whole[a].float() - whole[b].float()).abs().max() > 1e-2 for a in whole for b in whole if a != b)
    return torch.cat([whole[name][copies * row : copies * (row + 1)] for row, name in enumerate(NAMES)])


@torch.no_grad()
def mixed_logits(model, batch, names=NAMES, **arguments):
    return model(input_ids=batch, adapter_names=names, **arguments).logits


@every_layout
def test_each_row_gets_what_its_adapter_alone_gives_it(layout):
    model, batch = two_adapters(layout), make_batch(rows=4)
    expected = each_alone(model, lambda: logits(model, batch))
    for active in ("default", "second"):
        model.set_adapter(active)
        torch.testing.assert_close(mixed_logits(model, batch), expected, rtol=CLOSE, atol=CLOSE)
    with model.disable_adapter():
        torch.testing.assert_close(mixed_logits(model, batch), alone(model, "__base__", lambda: logits(model, batch)))


def test_a_block_that_was_compiled_before_mixes_them_too():
    model, batch = two_adapters("idlora", target_modules=["q_proj", "up_proj"]), make_batch(rows=4)
    expected = each_alone(model, lambda: logits(model, batch))
    model.get_submodule("base_model.model.model.layers.0").compile(backend="eager")
    assert (logits(model, batch) - expected).abs().max() > 1e-2
    torch.testing.assert_close(mixed_logits(model, batch), expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}, {"num_beams": 3, "num_return_sequences": 2}], ids=str)
@every_method
def test_generation_gives_each_row_its_adapter_s_answer(method, settings):
    model, batch = two_adapters(method), make_batch(rows=4, length=5)
    given = GREEDY | settings | {"attention_mask": torch.ones_like(batch)}
    expected = each_alone(model, lambda: model.generate(batch, **given), copies=settings.get("num_return_sequences", 1))
    assert torch.equal(model.generate(batch, adapter_names=NAMES, **given), expected)
    given = GREEDY | {"attention_mask": given["attention_mask"], "generation_config": GenerationConfig(**settings)}
    assert torch.equal(model.generate(batch, adapter_names=NAMES, **given), expected)


def test_sampling_several_answers_repeats_the_names_as_the_rows(monkeypatch):
    model, batch, seen = two_adapters("idlora"), make_batch(rows=4), []
    real = RoutedLayer.forward_mixed
    monkeypatch.setattr(RoutedLayer, "forward_mixed", lambda *a, **kw: seen.append(a[0].row_adapters) or real(*a, **kw))
    answers = model.generate(batch, adapter_names=NAMES, **GREEDY | {"do_sample": True}, num_return_sequences=2)
    assert len(answers) == 8
    assert seen
    assert all(names == [name for name in NAMES for _ in range(2)] for names in seen)


def test_an_encoder_sees_the_rows_before_beam_search_repeats_them():
    torch.manual_seed(0)
    base = T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0,
            initializer_factor=20.0, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )
    )  # fmt: skip
    settings = {"r": 2, "target_modules": ["q", "v"], "task_type": "SEQ_2_SEQ_LM"}
    model = excite(get_peft_model(base.eval(), make_config("idlora", **settings)))
    model.add_adapter("second", make_config("idlora", **settings))
    model.set_adapter("second")
    excite(model.eval(), seed=5)
    batch = make_batch(rows=4, length=5)
    given = GREEDY | {"num_beams": 2, "input_ids": batch}
    expected = each_alone(model, lambda: model.generate(**given))
    assert torch.equal(model.generate(**given, adapter_names=NAMES), expected)


@every_method
def test_modules_saved_whole_by_both_or_by_one_of_the_adapters_follow_the_names(method):
    saves = {"modules_to_save": ["lm_head"]}
    for first, second in ((saves, saves), (saves, {}), ({}, saves)):
        model, batch = two_adapters(method, second=second, **first), make_batch(rows=4)
        expected = each_alone(model, lambda model=model, batch=batch: logits(model, batch))
        for active in ("default", "second"):
            model.set_adapter(active)
            torch.testing.assert_close(mixed_logits(model, batch), expected, rtol=CLOSE, atol=CLOSE)
        assert not any(module._forward_pre_hooks for module in model.modules())


@every_method
def test_names_that_fit_no_row_or_no_adapter_and_training_are_refused(method):
    model, batch = two_adapters(method), make_batch(rows=4)
    expected = logits(model, batch)
    with pytest.raises(ValueError, match="3 names for a batch of 4 rows"):
        mixed_logits(model, batch, NAMES[:3])
    with pytest.raises(ValueError, match="'third', which is none of '__base__', 'default', 'second'"):
        mixed_logits(model, batch, ["third", *NAMES[1:]])
    with pytest.raises(ValueError, match="inference"):
        mixed_logits(model.train(), batch)
    assert torch.equal(logits(model.eval(), batch), expected), "no hook is left"


def test_routers_are_recorded_over_the_rows_of_their_own_adapter():
    model, batch = two_adapters("idlora"), make_batch(rows=4)
    for adapter_name, rows in (("second", [0, 3]), ("default", [2]), ("second", [])):
        names = [name if row in rows else "__base__" for row, name in enumerate(NAMES)]
        with model.record_router_entropy(adapter_name) as entropy:
            mixed_logits(model, batch, names)
        found = entropy()
        if not rows:
            assert found is None
            continue
        model.set_adapter(adapter_name)
        with model.record_router_entropy(adapter_name) as entropy:
            logits(model, batch[rows])
        assert found == pytest.approx(entropy(), rel=1e-5)
