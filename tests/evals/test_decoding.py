"""A cache that stays in its place gives the answers of one that grows, and so does a CUDA graph of its steps."""

import functools
import logging

import pytest
import torch
from oracle import Oracle, small_model
from peft import LoraConfig, get_peft_model
from texts import TEXTS, said

from idlora import IdLoraConfig
from reproduction.evals import decoding, generation

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def adapted(config) -> torch.nn.Module:
    model = get_peft_model(small_model().float(), config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.double()


MODELS = {
    "sliding window": functools.partial(small_model, "mistral"),
    "ID-LoRA": lambda: adapted(
        IdLoraConfig(r=4, lora_alpha=8, num_clusters=2, rank_boost=2, target_modules=TARGETS, task_type="CAUSAL_LM")
    ),
    "LoRA": lambda: adapted(LoraConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM")),
}
ASKED = {
    "stops": {"stops": ("e", "7")},
    "samples": {"temperature": 1.0, "top_p": 0.95, "samples": 3, "stops": ("e",)},
}


answers = functools.partial(said, batch_size=6, max_new_tokens=40)


@pytest.fixture
def fixed(monkeypatch):
    """Decode in small buffers that stay in place; gives the decoders that were made."""
    made = []

    def make(model, **size):
        made.append(decoding.FixedDecoder(model, graphs=model.device.type == "cuda", **size))
        return made[-1]

    monkeypatch.setattr(generation, "decoder", make)
    monkeypatch.setattr(decoding, "SLOTS", 16)
    monkeypatch.setattr(decoding, "FEWEST_ROWS", 1)
    return made


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("model", MODELS)
def test_a_cache_in_place_gives_the_answers_of_one_that_grows(model, asked, request):
    model = MODELS[model]()
    expected = answers(model, **ASKED[asked])
    made = request.getfixturevalue("fixed")
    assert answers(model, **ASKED[asked]) == expected
    assert len({text for texts in expected for text in texts}) > 3
    rows, slots = (sorted(set(sizes)) for sizes in zip(*made[0]._steps, strict=True))
    assert slots == [16, 32, 48, 64, 80]
    assert {1, 6} <= set(rows) if asked != "samples" else {3, 6} <= set(rows)  # a prompt of the seven is left over


@pytest.mark.parametrize("samples", [1, 3])
def test_the_batch_is_halved_as_answers_end_and_each_is_whole(samples, fixed):
    wanted = {text: "x" * (1 + 9 * number) + "é." for number, text in enumerate(TEXTS)}
    oracle = Oracle(wanted)
    oracle.config._attn_implementation = "sdpa"
    settings = {"temperature": 1.0, "samples": 3} if samples > 1 else {}
    found = answers(oracle, batch_size=8 * samples, max_new_tokens=80, **settings)
    assert found == [[text] * samples for text in wanted.values()]
    rows = {rows for rows, _ in fixed[0]._steps}
    assert rows == ({7, 4, 2, 1} if samples == 1 else {21, 11, 6, 3})


def test_buffers_serve_one_batch_after_another_and_keep_few_steps_and_the_models_own_attention(fixed, monkeypatch):
    monkeypatch.setattr(decoding, "GRAPHS", 2)
    model, before = small_model(), small_model().config._attn_implementation
    found = answers(model, batch_size=2)
    assert model.config._attn_implementation == before
    assert len(fixed) == 1
    assert len(fixed[0]._steps) == 2
    assert found == answers(model, batch_size=7)


@pytest.mark.parametrize("kind", ["llama", "mistral"])  # a sliding window notices where in the cache a token lies
def test_a_prefill_in_several_passes_fills_the_same_cache(kind, fixed, monkeypatch):
    model = small_model(kind)
    whole = answers(model, **ASKED["samples"])
    monkeypatch.setattr(decoding, "passes", lambda prompts, device: ([prompt] for prompt in prompts))
    assert answers(model, **ASKED["samples"]) == whole


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_attn_implementation": "eager"}, "its attention is eager"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "full_attention, sliding_attention"),
    ],
)
def test_a_model_that_the_buffers_do_not_serve_is_told_apart(change, reason):
    model = small_model()
    for name, value in change.items():
        setattr(model.config, name, value)
    with pytest.raises(NotImplementedError, match=reason):
        decoding.FixedDecoder(model, rows=2, length=8, graphs=False)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("model", MODELS)
def test_a_graph_gives_the_answers_of_the_steps_it_was_made_of(model, asked, monkeypatch, request):
    model = MODELS[model]().cuda()
    with monkeypatch.context() as growing:
        growing.setattr(generation, "decoder", lambda model, **size: decoding.GrowingDecoder(model))
        expected = answers(model, **ASKED[asked])
    assert answers(model, **ASKED[asked]) == expected
    made = request.getfixturevalue("fixed")
    assert answers(model, **ASKED[asked]) == expected
    assert len(made[0]._steps) > 4


@pytest.mark.gpu
@on_gpu
def test_a_model_that_waits_for_the_gpu_is_decoded_step_by_step_and_the_reason_is_told_once(caplog):
    model = small_model().cuda()
    expected = answers(model)
    assert isinstance(decoding.decoder(model, rows=2, length=8), decoding.FixedDecoder)
    model.lm_head.register_forward_hook(lambda _, args, out: out + 0 * out.sum().item())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert answers(model) == expected
    assert isinstance(decoding.decoder(model, rows=2, length=8), decoding.GrowingDecoder)
    (told,) = [message for message in caplog.messages if "without a CUDA graph" in message]
    assert "synchroniz" in told
