"""The Triton kernels against plain float64 references, on a GPU if there is one, else in Triton's interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tuner_models import DEVICE, ROUTERS, draw, on_gpu

from idlora.tuners.idlora.layer import ascending

pytest.importorskip("triton", reason="the kernels are written in Triton, which this platform has no package of")
from idlora.tuners.idlora.kernels import eager, fused, launch

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered")


@pytest.fixture(autouse=True)
def poisoned_buffers():
    """Fill uninitialised memory with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


class Problem:
    """Random arguments of one update, and the update by the equations in float64."""

    def __init__(self, *, M, N, k, r, s, router, bias=False, mask=False, apart=False, dtype=torch.float32):
        torch.manual_seed(M + N + k + r + s)
        self.base = draw(M, N, dtype=dtype).requires_grad_()
        self.pivots = torch.randperm(N, device=DEVICE)[: k * r].view(k, r).int()
        self.order = ascending(self.pivots)
        self.B = draw(N // s, r // s, scale=r**-0.5).requires_grad_()
        self.bias = draw(N, dtype=dtype) if bias else None
        self.x = draw(M, k, r, dtype=dtype).requires_grad_() if apart else None
        self.mask = torch.rand(M, r, device=DEVICE) > 0.3 if mask else None
        shape = {"dense": (M, k), "inner_product": (r,), "uniform": (0,)}[router]
        self.route = draw(*shape, scale=1 if router == "dense" else r**-0.5).requires_grad_()
        self.router, self.s, self.scale = router, s, 0.7
        if router == "uniform":
            self.route = None

    def wrt(self):
        return [tensor for tensor in (self.base, self.x, self.B, self.route) if tensor is not None]

    def found(self, saves=True):
        return eager.Adapt.apply(
            self.base, self.x, self.pivots, self.order, self.B, self.bias, self.route, self.mask, self.router,
            self.scale, saves,
        )  # fmt: skip

    def few(self):
        return launch.adapt_few(
            self.base, self.pivots, self.B, x=self.x, bias=self.bias, route=self.route, router=self.router,
            scale=self.scale,
        )  # fmt: skip

    def expected(self):
        """Return (y, its float64 inputs that require gradients)."""
        base, given, B, route = (
            None if tensor is None else tensor.detach().double().requires_grad_()
            for tensor in (self.base, self.x, self.B, self.route)
        )
        x = base if self.bias is None else base - self.bias.double()
        x = torch.stack([x[:, rows.long()] for rows in self.pivots], dim=1) if given is None else given  # (M, k, r)
        if self.router == "dense":
            alpha = route.softmax(dim=1)
        else:
            alpha = x @ route if route is not None else torch.full_like(x[:, :, 0], 1 / x.shape[1])
        z = (alpha[:, :, None] * x).sum(1)
        if self.mask is not None:
            z = z * self.mask
        u = torch.cat([self.scale * chunk @ B.T for chunk in z.chunk(self.s, dim=1)], dim=1)
        return base + u, [tensor for tensor in (base, given, B, route) if tensor is not None]


def assert_close(found, expected, dtype):
    assert found.isfinite().all()
    error, size = (found.double() - expected).norm(), expected.norm()
    assert error <= TOLERANCE[dtype] * size + 1e-12, f"{error / size:.1e} away"


def check(problem):
    """Check the output and all gradients."""
    dtype = problem.base.dtype
    found, (expected, leaves) = problem.found(), problem.expected()
    assert (expected - leaves[0]).norm() > 0.05 * expected.norm()  # the update is large enough to test
    assert_close(found, expected, dtype)
    cotangent = draw(*found.shape, dtype=dtype)
    gradients = torch.autograd.grad(found, problem.wrt(), cotangent)
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, leaves, cotangent.double()), strict=True):
        assert_close(gradient, reference, dtype)


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize(
    "sizes",
    [
        {"M": 5, "N": 24, "k": 3, "r": 4, "s": 2, "bias": True, "mask": True},
        {"M": 17, "N": 97 * 2, "k": 4, "r": 16, "s": 2},
        {"M": 33, "N": 60, "k": 2, "r": 10, "s": 1, "bias": True},
        {"M": 3, "N": 64, "k": 8, "r": 8, "s": 4, "mask": True},
        {"M": 2, "N": 2080, "k": 8, "r": 256, "s": 2},
        {"M": 1, "N": 36, "k": 1, "r": 36, "s": 3},
        {"M": 7, "N": 60, "k": 3, "r": 10, "s": 2, "bias": True, "mask": True, "apart": True},
    ],
    ids=lambda sizes: "-".join(map(str, sizes.values())),
)
def test_an_update_and_its_gradients_are_those_of_the_equations(router, sizes):
    check(Problem(router=router, **sizes))


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize(("k", "r"), [(4, 128), (2, 8), (8, 256)])
def test_half_precision_is_right_to_a_hundredth(k, r, router, dtype):
    for apart in (False, True):
        check(Problem(M=1000, N=4096, k=k, r=r, s=2, router=router, mask=True, apart=apart, dtype=dtype))


@pytest.mark.parametrize("router", ROUTERS)
def test_any_order_of_the_visit_gives_the_same(router):
    problem = Problem(M=6, N=96, k=4, r=16, s=2, router=router)
    shuffled = torch.randperm(64, device=DEVICE)
    problem.order = torch.stack([shuffled, shuffled.argsort()]).int()
    check(problem)


@pytest.mark.parametrize("unset", [-1, 96])
def test_a_pivot_that_is_no_row_poisons_the_output(unset):
    problem = Problem(M=3, N=96, k=4, r=16, s=2, router="dense")
    problem.pivots[2, 5] = unset
    assert problem.found().isnan().any(dim=1).all()
    assert problem.few().isnan().any(dim=1).all()


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("M", [1, 3])
@pytest.mark.parametrize("given", [{}, {"bias": True}, {"bias": True, "apart": True}])
def test_few_tokens_get_the_same_output_in_one_launch(M, router, given):
    problem = Problem(M=M, N=2 * 101, k=3, r=10, s=2, router=router, **given)
    assert_close(problem.few(), problem.expected()[0], torch.float32)
    assert_close(problem.found(saves=False), problem.expected()[0], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("M", "features", "k"), [(5, 30, 3), (70, 300, 4), (40, 128, 8)])
def test_the_dense_router_and_its_gradients(M, features, k, dtype):
    h, T = draw(M, features, dtype=dtype).requires_grad_(), draw(k, features).requires_grad_()
    found, leaves = eager.Route.apply(h, T), [tensor.detach().double().requires_grad_() for tensor in (h, T)]
    expected, cotangent = leaves[0] @ leaves[1].T, draw(M, k)
    assert found.dtype == torch.float32
    assert_close(found, expected, torch.float32)  # in half precision too: the rounding error of T is added
    gradients = torch.autograd.grad(found, (h, T), cotangent)
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, leaves, cotangent.double()), strict=True):
        assert_close(gradient, reference, dtype)


def test_no_tokens_give_no_output_and_gradients_of_zero():
    problem = Problem(M=0, N=24, k=3, r=4, s=2, router="inner_product")
    assert problem.found().shape == (0, 24)
    _, dB, dT = torch.autograd.grad(problem.found(), problem.wrt(), torch.ones(0, 24, device=DEVICE))
    assert not dB.any()
    assert not dT.any()
    assert fused.logits(draw(0, 9), draw(3, 9), 24).shape == (0, 3)


def test_the_kernels_compile_for_the_gpus_of_today():
    """Run in a separate process, without the interpreter; no GPU is needed."""
    script = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "compiled"
