"""The inner-product router of Eq. 4: what makes it unstable, and what keeps it stable, as the config documents it."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from tuner_models import excite

from idlora.tuners import IdLoraConfig

SEEDS = 20


def adapted(router, base):
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["lower", "upper"]}
    if router is None:
        return get_peft_model(base, LoraConfig(**settings))
    return get_peft_model(base, IdLoraConfig(num_clusters=4, router=router, selection="serial", **settings))


def two_layers(*between):
    base = nn.Sequential()
    for name, layer in (("lower", nn.Linear(16, 32)), *between, ("upper", nn.Linear(32, 16))):
        base.add_module(name, layer)
    return base


@pytest.mark.parametrize(("router", "degree"), [("inner_product", 2), ("dense", 1), ("uniform", 1)])
def test_its_update_alone_is_quadratic_in_the_input(router, degree):
    torch.manual_seed(0)
    layer = excite(adapted(router, two_layers())).base_model.model.lower
    h = 100 * torch.randn(5, 16)  # large enough for the dense router's softmax to have chosen

    def update(h):
        return layer.update("default", h, layer.base_layer(h))

    torch.testing.assert_close(update(10 * h), 10**degree * update(h), rtol=1e-4, atol=1e-2)


def lost(router, lr, *, clip=math.inf, optimizer=torch.optim.SGD, between=()):
    """In how many of the seeds 30 steps end in a loss that is no number, on inputs with a standard deviation of 2."""
    count = 0
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = adapted(router, two_layers(*between))
        moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
        x, goal, stepper = 2 * torch.randn(32, 16), torch.randn(32, 16), optimizer(moving, lr=lr)
        for _ in range(30):
            stepper.zero_grad()
            loss = (model(x) - goal).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(moving, clip)
            stepper.step()
            if not loss.isfinite():
                count += 1
                break
    return count


def test_two_layers_in_a_row_need_smaller_steps_with_it_than_with_any_other_router_or_lora():
    assert lost("inner_product", 1 / 2) > SEEDS / 2
    assert lost("inner_product", 1 / 16) == 0
    assert [lost(router, 1 / 2) for router in ("dense", "uniform", None)] == [0, 0, 0]


@pytest.mark.parametrize(
    "settings",
    [{"clip": 1.0}, {"optimizer": torch.optim.AdamW}, {"between": [("norm", nn.LayerNorm(32))]}],
    ids=["clipped gradients", "AdamW", "a normalised input"],
)
def test_bounded_steps_or_normalised_inputs_keep_it_stable_at_the_same_rate(settings):
    assert lost("inner_product", 1 / 2, **settings) == 0
