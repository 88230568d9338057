"""The largest eigenvalue of the Hessian and the first update, against explicit matrices."""

from dataclasses import replace

import pytest
import torch
from cells import peft_method

from reproduction.training import build_adapted, build_base
from reproduction.training.batches import Collator
from reproduction.training.sharpness import (
    first_update,
    hessian_product,
    largest_eigenvalue,
    losses,
    take_plain_passes,
    trained,
)

SMALL = {
    "lora": peft_method("lora", "LORA", r=1, target_modules=["v_proj"], lora_dropout=0.5),
    "idlora": peft_method("idlora", "IDLORA", r=2, num_clusters=2, target_modules=["v_proj"], lora_dropout=0.5),
}


@pytest.fixture
def started(base, tokenized):
    """Return method → (its model before training in float64, two padded micro-batches, both as one batch)."""

    def start(method):
        model, tokenizer = build_base(replace(base, attention="eager"))
        model = build_adapted(model, method, 0).double().train()
        take_plain_passes(model)
        collate = Collator(tokenizer)
        return model, [collate(tokenized.rows[:3]), collate(tokenized.rows[3:5])], collate(tokenized.rows[:5])

    return start


def random_symmetric(eigenvalues):
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), generator=generator).double())[0]
    return basis @ torch.diag(torch.tensor(eigenvalues).double()) @ basis.T


def vector(size):
    return torch.randn(size, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(
    "eigenvalues",
    [
        [-5.0, *[0.1 * n for n in range(10)], 4.9],  # the largest in size is negative, the next positive
        [-float(n) for n in range(1, 9)],
        [3.0, 3.0, 1.0, 0.0],
    ],
)
def test_the_largest_eigenvalue_is_found_where_the_longest_is_another(eigenvalues):
    matrix = random_symmetric(eigenvalues)
    found = largest_eigenvalue(matrix.mv, vector(len(eigenvalues)), iterations=12, tolerance=1e-6)
    assert found.value == pytest.approx(max(eigenvalues), rel=1e-5)
    assert found.converged
    assert found.iterations <= len(eigenvalues)


def test_a_search_ends_with_its_products_and_says_whether_a_true_eigenvalue_is_near():
    matrix = random_symmetric([float(n) for n in range(100)])
    few = largest_eigenvalue(matrix.mv, vector(100), iterations=4, tolerance=0.01)
    assert (few.iterations, few.converged) == (4, False)
    more = largest_eigenvalue(matrix.mv, vector(100), iterations=60, tolerance=0.01)
    assert more.converged
    assert 4 < more.iterations < 60
    assert more.value == pytest.approx(99, rel=0.01)


def whole_hessian(model, batch):
    """Compute H (p, p) of transformers' own loss on one batch by torch's Hessian function."""
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    sizes = [parameter.numel() for parameter in own.values()]

    def loss(theta):
        parts = [part.view_as(old) for part, old in zip(theta.split(sizes), own.values(), strict=True)]
        return torch.func.functional_call(model, dict(zip(own, parts, strict=True)), (), dict(batch)).loss

    return torch.autograd.functional.hessian(loss, torch.cat([each.detach().flatten() for each in own.values()]))


@pytest.mark.parametrize("name", SMALL)
def test_an_adapters_largest_eigenvalue_is_that_of_its_whole_hessian(name, started):
    model, batches, together = started(SMALL[name])
    first, second = losses(model, batches)
    assert abs(first - second) > 0.1
    assert (first + second).item() == pytest.approx(model(**together).loss.item(), rel=1e-6)
    assert not any(getattr(module, "kernels_enabled", False) for module in model.modules())
    hessian = whole_hessian(model, together)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert eigenvalues[0] < -0.1 * eigenvalues[-1] < 0
    product = hessian_product(trained(model), lambda: losses(model, batches))
    v = vector(len(hessian))
    torch.testing.assert_close(product(v), hessian @ v, atol=1e-5, rtol=1e-4)  # equal, so dropout is off
    found = largest_eigenvalue(product, v, iterations=60, tolerance=1e-3)
    assert found.converged
    assert found.value == pytest.approx(float(eigenvalues[-1]), rel=1e-3)


def test_the_first_step_moves_an_output_by_what_adam_makes_of_the_whole_gradient(started):
    model, batches, _ = started(SMALL["lora"])
    modules = {name: module for name, module in model.named_modules() if name.endswith("v_proj")}
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(sum(losses(model, batches)), trained(model))
    rate, inputs = 1e-3, {}
    for name, module in modules.items():
        module.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given[0]}))
    with torch.no_grad():
        model(**batches[0])
    mask, expected = batches[0]["attention_mask"].bool(), {}
    for name, module in modules.items():
        g = gradients[names.index(f"{name}.lora_B.default.weight")]
        B = -rate * (g / (g.abs() + 1e-8))  # in the first step Adam's moments are the gradient and its square
        A, h = module.lora_A["default"].weight.detach(), inputs[name][mask]
        W = module.get_base_layer().weight.detach()
        expected[name] = float((module.scaling["default"] * h @ A.T @ B.T).norm() / (h @ W.T).norm())
    assert first_update(model, batches, modules, rate=rate, tokens=10_000) == pytest.approx(expected, rel=1e-6)
    model, batches, _ = started(SMALL["lora"])
    modules = {name: module for name, module in model.named_modules() if name.endswith("v_proj")}
    fewer = first_update(model, batches, modules, rate=rate, tokens=5)
    assert fewer == pytest.approx(expected, rel=0.5)
    assert fewer != pytest.approx(expected, rel=1e-6)
