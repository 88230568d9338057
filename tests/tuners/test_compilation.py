"""Compiled decoder layers: no graph breaks, one compilation for all of them, none for another length or batch."""

import pytest
import torch
from torch._dynamo.utils import counters
from tuner_models import OURS, excite, gradients, logits, make_adapted, make_base, make_batch

LAYERS = 4  # more than the compilation limit below

TARGETS = ["q_proj", "down_proj"]

MOST_GRAPHS = 2  # the first length, and all others


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=3):
        yield
    torch._dynamo.reset()


def compiled(model):
    """Compile every decoder layer in place, with a backend that needs no C++ compiler."""
    for layer in model.get_submodule("base_model.model.model.layers"):
        layer.compile(backend="aot_eager", fullgraph=True)  # raises at a graph break
    return model


def adapted(method, *, checkpointing=False, **settings):
    base = make_base(num_hidden_layers=LAYERS)
    model = excite(make_adapted(method, base=base, target_modules=TARGETS, **settings)).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    return model


@pytest.mark.parametrize("method", OURS)
def test_compiled_layers_train_as_eager_ones_do_and_share_one_graph(method):
    model, batch = adapted(method), make_batch()
    expected, expected_logits = gradients(model, batch), logits(model, batch)
    compiled(model)
    for name, gradient in gradients(model, batch).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5, msg=name)
    assert counters["stats"]["unique_graphs"] == 1
    model.disable_input_require_grads()  # else the first layer's input differs from the others'
    torch.testing.assert_close(logits(model, batch), expected_logits, rtol=1e-4, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == 2  # one more, without gradients


def test_another_length_compiles_once_more_and_never_again():
    model = compiled(adapted("idlora", checkpointing=True, lora_dropout=0.1))
    for rows, length in ((2, 9), (2, 12), (2, 7)):
        with torch.autocast("cpu", torch.bfloat16):
            gradients(model, make_batch(rows, length))
    assert counters["stats"]["unique_graphs"] == MOST_GRAPHS
    assert not counters["graph_break"]
    assert not counters["recompile_limit"]
