"""Which rows are chosen, and that the choice can be relied on."""

import pytest
import torch

from idlora import select_pivots
from idlora.tuners.idlora import clustering


@pytest.fixture(params=["torch", "k_means_constrained"])
def backend(request):
    return request.param


def make_weight(rows=40, columns=12, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def make_blobs(sizes, columns=8, seed=0):
    """Rows around well separated centres: a weight, and each row's blob."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    blobs = blobs[torch.randperm(len(blobs), generator=generator)]
    centres = 20 * torch.eye(len(sizes), columns)
    return centres[blobs] + torch.randn(len(blobs), columns, generator=generator), blobs


@pytest.mark.parametrize("method", clustering.METHODS)
def test_pivots_are_different_rows_as_int32(method, backend):
    pivots = select_pivots(make_weight(), 4, 6, method=method, backend=backend)
    assert pivots.shape == (4, 6)
    assert pivots.is_contiguous()
    assert pivots.dtype == torch.int32
    assert pivots.min() >= 0
    assert pivots.max() < 40
    assert len(pivots.unique()) == 24


def test_pmrc_finds_the_clusters_and_takes_the_rows_nearest_their_means_nearest_first(backend):
    weight, blobs = make_blobs([12, 9, 15])
    pivots = select_pivots(weight, 3, 5, backend=backend)
    assert sorted(blobs[pivots[:, 0]].tolist()) == [0, 1, 2]
    for row in pivots.long():
        members = torch.nonzero(blobs == blobs[row[0]]).flatten()
        distances = (weight[members] - weight[members].mean(0)).norm(dim=1)
        assert row.tolist() == members[distances.argsort()[:5]].tolist()


def test_every_cluster_can_give_r_rows_even_where_the_data_would_not(backend):
    weight, blobs = make_blobs([34, 3, 3])
    pivots = select_pivots(weight, 3, 10, backend=backend)
    assert len(pivots.unique()) == 30
    assert (blobs == 1).sum() < 10
    assert len(select_pivots(weight, 4, 10, backend=backend).unique()) == 40  # all rows there are


def test_pmrc_looks_at_the_weight(backend):
    choices = [select_pivots(make_weight(seed=seed), 4, 6, backend=backend) for seed in (0, 1)]
    assert not torch.equal(*choices)


@pytest.mark.parametrize("scale", [2.0**-40, 1e-4, 0.02, 3.0, 1e6])
@pytest.mark.parametrize("weight", [make_weight(60, 32), make_blobs([20, 20, 20], 32)[0]])
def test_the_scale_of_the_weight_does_not_matter(scale, weight, backend):
    scaled = select_pivots(weight * scale, 3, 6, backend=backend)
    assert torch.equal(scaled, select_pivots(weight, 3, 6, backend=backend))


@pytest.mark.parametrize("method", ["pmrc", "random"])
def test_the_choice_is_made_by_the_seed_and_nothing_else(method, backend):
    settings = {"method": method, "backend": backend}
    first = select_pivots(make_weight(), 4, 6, seed=3, **settings)
    torch.manual_seed(99)
    assert torch.equal(select_pivots(make_weight(), 4, 6, seed=3, **settings), first)
    others = [select_pivots(make_weight(), 4, 6, seed=seed, **settings) for seed in range(5)]
    assert not all(torch.equal(other, first) for other in others)


def test_serial_takes_contiguous_rows_from_the_first_one_on():
    assert select_pivots(make_weight(), 2, 3, method="serial").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("method", ["smallest_norm", "largest_norm"])
def test_rows_go_by_their_norm_and_are_dealt_like_cards(method):
    weight = make_weight()
    ranking = weight.norm(dim=1).argsort(descending=method == "largest_norm")
    pivots = select_pivots(weight, 4, 6, method=method)
    assert pivots.T.flatten().tolist() == ranking[:24].tolist()  # A_1 has ranks 1, 5, 9, …, A_2 has 2, 6, 10, …
    assert pivots[1, 0] == ranking[1]


def test_of_equal_norms_the_first_row_is_taken():
    assert select_pivots(torch.ones(9, 3), 2, 2, method="largest_norm").tolist() == [[0, 2], [1, 3]]
    assert select_pivots(torch.ones(9, 3), 2, 2, method="smallest_norm").tolist() == [[0, 2], [1, 3]]


def test_pivoted_qr_takes_the_row_farthest_from_the_span_of_those_before_it():
    weight = make_weight(20, 12).double()
    residual, expected = weight.clone(), []
    for _ in range(8):
        expected.append(int(residual.norm(dim=1).argmax()))
        direction = residual[expected[-1]] / residual[expected[-1]].norm()
        residual = residual - torch.outer(residual @ direction, direction)
    assert select_pivots(weight, 4, 2, method="pivoted_qr").T.flatten().tolist() == expected
    assert expected != weight.norm(dim=1).argsort(descending=True)[:8].tolist()


def test_pivoted_qr_finds_the_rows_that_span_the_others():
    basis, mixing = make_weight(6, 12), make_weight(30, 6, seed=1)
    weight = torch.cat([0.1 * mixing @ basis, 100 * basis])  # rank 6: the last six rows make all the others
    assert sorted(select_pivots(weight, 2, 3, method="pivoted_qr").flatten().tolist()) == list(range(30, 36))
    assert len(select_pivots(weight, 6, 6, method="pivoted_qr").unique()) == 36  # beyond the rank: whatever is left


def test_the_sizes_are_those_of_the_clusters_that_the_pivots_come_from(backend):
    weight, blobs = make_blobs([12, 9, 15])
    pivots, sizes = clustering.select_pivots_many([("w", weight)], 3, 5, backend=backend)["w"]
    assert sorted(sizes) == [9, 12, 15]
    assert list(sizes) == [int((blobs == blobs[row[0]]).sum()) for row in pivots.long()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_floating_type_will_do_and_the_weight_is_left_alone(dtype, backend):
    weight = make_weight().to(dtype).requires_grad_()
    before = weight.detach().clone()
    expected = select_pivots(before.float(), 4, 6, backend=backend)
    assert torch.equal(select_pivots(weight, 4, 6, backend=backend), expected)
    assert torch.equal(weight, before)
    strided = make_weight(12, 40).T
    expected = select_pivots(strided.contiguous(), 4, 6, backend=backend)
    assert torch.equal(select_pivots(strided, 4, 6, backend=backend), expected)


@pytest.mark.parametrize("weight", [torch.zeros(24, 5), torch.ones(24, 5), torch.eye(3, 5).repeat(8, 1)])
@pytest.mark.parametrize("k", [1, 3, 4])
def test_constant_and_repeated_rows_still_give_different_pivots(weight, k, backend):
    assert len(select_pivots(weight, k, 6, backend=backend).unique()) == k * 6


@pytest.mark.parametrize("method", clustering.METHODS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_entries_that_are_not_finite_are_an_error(method, value, backend):
    weight = make_weight()
    weight[3, 4] = value
    with pytest.raises(ValueError, match="1 of the weight's entries are not finite"):
        select_pivots(weight, 4, 6, method=method, backend=backend)


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
