"""Pivot selection: the chosen rows, and their reproducibility."""

import statistics

import pytest
import torch
from safetensors.torch import load_file

from idlora import select_pivots
from idlora.tuners.idlora.clustering import BACKENDS, METHODS, PivotSelector
from idlora.tuners.idlora.kmeans import cluster_rows
from reproduction.tinyworld.bases import BASES, base_path

each_backend = pytest.mark.parametrize("backend", BACKENDS)


def make_weight(rows=40, columns=12, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def make_blobs(sizes, columns=8, seed=0):
    """Return a weight with rows around well separated centres, and each row's blob."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    blobs = blobs[torch.randperm(len(blobs), generator=generator)]
    centres = 20 * torch.eye(len(sizes), columns)
    return centres[blobs] + torch.randn(len(blobs), columns, generator=generator), blobs


@pytest.mark.parametrize("method", METHODS)
@each_backend
def test_pivots_are_different_rows_as_int32_and_entries_must_be_finite(method, backend):
    weight = make_weight()
    pivots = select_pivots(weight, 4, 6, method=method, backend=backend)
    assert pivots.shape == (4, 6)
    assert pivots.dtype == torch.int32
    assert pivots.is_contiguous()
    assert pivots.min() >= 0
    assert pivots.max() < 40
    assert len(pivots.unique()) == 24
    for value in (float("nan"), float("inf")):
        weight[3, 4] = value
        with pytest.raises(ValueError, match="1 of the weight's entries are not finite"):
            select_pivots(weight, 4, 6, method=method, backend=backend)


@each_backend
def test_pmrc_finds_the_clusters_and_takes_the_rows_nearest_their_means_nearest_first(backend):
    weight, blobs = make_blobs([12, 9, 15])
    pivots, sizes = PivotSelector(num_clusters=3, r=5, backend=backend).select(weight)
    assert list(sizes) == [int((blobs == blobs[row[0]]).sum()) for row in pivots.long()]
    assert sorted(blobs[pivots[:, 0]].tolist()) == [0, 1, 2]
    for row in pivots.long():
        members = torch.nonzero(blobs == blobs[row[0]]).flatten()
        distances = (weight[members] - weight[members].mean(0)).norm(dim=1)
        assert row.tolist() == members[distances.argsort()[:5]].tolist()


@each_backend
def test_every_cluster_can_give_r_rows_even_where_the_data_would_not(backend):
    weight, _ = make_blobs([34, 3, 3])
    assert len(select_pivots(weight, 3, 10, backend=backend).unique()) == 30
    assert len(select_pivots(weight, 4, 10, backend=backend).unique()) == 40  # all rows
    for weight in (torch.zeros(24, 5), torch.ones(24, 5), torch.eye(3, 5).repeat(8, 1)):
        for k in (1, 3, 4):
            assert len(select_pivots(weight, k, 6, backend=backend).unique()) == k * 6


@each_backend
def test_scale_type_and_strides_of_the_weight_do_not_matter(backend):
    weight = make_weight(60, 32)
    expected = select_pivots(weight, 3, 6, backend=backend)
    for scale in (2.0**-40, 1e-4, 3.0, 1e6, *((1e-36, 1e36) if backend == "torch" else ())):
        assert torch.equal(select_pivots(weight * scale, 3, 6, backend=backend), expected)
    if backend == "torch":
        assert torch.equal(select_pivots(weight.double() * 1e288, 3, 6), expected)
    assert torch.equal(select_pivots(weight.T.contiguous().T, 3, 6, backend=backend), expected)
    for dtype in (torch.bfloat16, torch.float16):
        low = weight.to(dtype).requires_grad_()
        before = low.detach().clone()
        assert torch.equal(
            select_pivots(low, 3, 6, backend=backend), select_pivots(before.float(), 3, 6, backend=backend)
        )
        assert torch.equal(low, before)


@pytest.mark.parametrize("method", ["pmrc", "random"])
@each_backend
def test_the_choice_is_made_by_the_weight_and_the_seed_and_nothing_else(method, backend):
    settings = {"method": method, "backend": backend}
    first = select_pivots(make_weight(), 4, 6, seed=3, **settings)
    torch.manual_seed(99)
    assert torch.equal(select_pivots(make_weight(), 4, 6, seed=3, **settings), first)
    assert any(not torch.equal(select_pivots(make_weight(), 4, 6, seed=s, **settings), first) for s in range(3))
    if method == "pmrc":
        assert not torch.equal(select_pivots(make_weight(seed=1), 4, 6, seed=3, **settings), first)


def test_serial_takes_contiguous_rows_from_the_first_one_on():
    assert select_pivots(make_weight(), 2, 3, method="serial").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("method", ["smallest_norm", "largest_norm"])
def test_rows_go_by_their_norm_the_first_of_equals_and_are_dealt_like_cards(method):
    weight = make_weight()
    ranking = weight.norm(dim=1).argsort(descending=method == "largest_norm")
    assert select_pivots(weight, 4, 6, method=method).T.flatten().tolist() == ranking[:24].tolist()
    assert select_pivots(torch.ones(9, 3), 2, 2, method=method).tolist() == [[0, 2], [1, 3]]


def test_pivoted_qr_takes_the_row_farthest_from_the_span_of_those_before_it():
    weight = make_weight(20, 12).double()
    residual, expected = weight.clone(), []
    for _ in range(8):
        expected.append(int(residual.norm(dim=1).argmax()))
        direction = residual[expected[-1]] / residual[expected[-1]].norm()
        residual = residual - torch.outer(residual @ direction, direction)
    assert select_pivots(weight, 4, 2, method="pivoted_qr").T.flatten().tolist() == expected


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((make_weight(), 4, 11), {}, "4 clusters of 11 rows from 40 rows"),
        ((make_weight(), 0, 6), {}, "0 clusters of 6 rows"),
        ((make_weight()[0], 4, 6), {}, r"not shape \(12,\)"),
        ((make_weight(), 4, 6), {"method": "nearest"}, "method must be one of .*, not 'nearest'"),
        ((make_weight(), 4, 6), {"backend": "cuml"}, "backend must be one of .*, not 'cuml'"),
    ],
)
def test_arguments_that_make_no_sense_are_named(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        select_pivots(*arguments, **settings)


# On the embedded bases


def embedded_weights(base):
    """Return the 28 adapted weights (out, in) of an embedded base, by name."""
    tensors = load_file(base_path(base) / "model.safetensors")
    return {name: tensor.float() for name, tensor in tensors.items() if name.endswith("_proj.weight")}


def test_the_two_backends_share_about_as_many_pivots_as_two_seeds_of_one():
    weights = list(embedded_weights(BASES[0]).values())

    def overlap(one, other):
        shares = []
        for weight in weights:
            first, second = (set(select_pivots(weight, 4, 12, **each).flatten().tolist()) for each in (one, other))
            shares.append(len(first & second) / 48)
        return statistics.fmean(shares)

    ours, library = {"backend": "torch"}, {"backend": "k_means_constrained"}
    across = overlap(ours, library)
    assert overlap(library, library | {"seed": 1}) - 0.05 < across < overlap(ours, ours | {"seed": 1}) + 0.05


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_clusters_as_good_as_the_cpu_s_and_holds_one_weight_at_once():
    generator = torch.Generator().manual_seed(13)
    weights = [torch.randn(1024, 512, generator=generator).bfloat16() for _ in range(8)]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    streamed = [select_pivots(weight, 4, 64) for weight in weights]  # moved from the CPU to the GPU by default
    assert torch.cuda.max_memory_allocated() - before < 5 * 4 * 1024 * 512
    for weight, pivots in zip(weights, streamed, strict=True):
        assert torch.equal(select_pivots(weight.cuda(), 4, 64), pivots)
        here = select_pivots(weight, 4, 64, device="cpu")
        assert torch.equal(select_pivots(weight.cuda(), 4, 64, device="cpu"), here)
        gpu, cpu = (cluster_rows(weight.float().to(device), 4, 64).objective for device in ("cuda", "cpu"))
        assert gpu == pytest.approx(cpu, rel=1e-3)
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        assert torch.equal(select_pivots(weights[0].cuda(), 4, 64), streamed[0])
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
