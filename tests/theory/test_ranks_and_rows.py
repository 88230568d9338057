"""The rank of the update against Eq. 4 written out; and whether the measure of row clusters sees planted ones alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reproduction.theory.estimates import explained, kmeans
from reproduction.theory.rank import Rank, boosted, lora_rank, measure
from reproduction.theory.rows import PROJECTIONS, Rows, read_bfloat16, run, same_covariance

RANK = Rank(seed=0, draws=2, side=24, tokens=40, ranks=(4,), splits=(1, 2, 4), clusters=(1, 3))
ROWS = Rows(seed=0, bases=("made",), k=3, null_draws=3)


@pytest.mark.parametrize("splits", [1, 2, 4])
def test_the_update_has_rank_r_and_only_what_it_reads_has_k_r(splits: int) -> None:
    rng = np.random.default_rng(0)
    basis, x = rng.normal(size=(24 // splits, 8 // splits)), rng.normal(size=8)
    parts = np.concatenate([basis @ part for part in np.split(x, splits)])
    np.testing.assert_allclose(boosted(basis, splits) @ x, parts)
    found = measure(np.random.default_rng(0), RANK, r=4, k=3, splits=splits)
    assert found["update"] == found["outputs_dense"] == found["outputs_inner"] == 4
    assert found["inputs"] == found["separate_b"] == 12
    assert found["update_reaches_r"]
    assert found["separate_b_reaches_kr"]
    assert not found["update_reaches_kr"]
    assert found.get("above_unsplit_b", splits == 1)


def test_with_one_cluster_nothing_is_said_of_k_r_and_lora_trains_no_more_than_id_lora() -> None:
    found = measure(np.random.default_rng(0), RANK, r=4, k=1, splits=1)
    assert not {"update_reaches_kr", "above_unsplit_b"} & set(found)
    assert lora_rank(24, 8, k=2, splits=2) == 2  # (24·8/4 + 2·24) / (2·24)
    assert lora_rank(24, 8, k=2, splits=1) == 5
    assert found["above_lora_at_equal_count"] == (found["lora_at_equal_count"] < 4)


def test_kmeans_finds_planted_clusters_and_keeps_the_best_of_its_starts() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    vectors = 9 * rng.normal(size=(3, 8))[labels] + rng.normal(size=(60, 8))
    found = kmeans(vectors, 3, rng=rng)
    assert {frozenset(np.flatnonzero(found == c)) for c in range(3)} == {
        frozenset(np.flatnonzero(labels == c)) for c in range(3)
    }
    assert explained(vectors, found) > 0.9 > explained(vectors, np.repeat([0, 1, 2], 20))
    assert explained(vectors + 100, found) == pytest.approx(explained(vectors, found))
    vectors = rng.normal(size=(40, 3))
    few, many = (
        [explained(vectors, kmeans(vectors, 6, rng=np.random.default_rng(seed), starts=starts)) for seed in range(6)]
        for starts in (1, 8)  # the first start is the same
    )
    assert np.all(np.array(many) >= np.array(few) - 1e-12)
    assert sum(many) > sum(few)


def save(folder: Path, weights: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    save_file({name: torch.tensor(w).bfloat16() for name, w in weights.items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_bfloat16_is_read_as_the_numbers_it_holds(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5, 0.0], [3.14159, 2.0**-20, -1e30]])
    found = read_bfloat16(save(tmp_path / "made", {"a": values}))["a"]
    np.testing.assert_array_equal(found, torch.tensor(values).bfloat16().double().numpy())


def test_the_same_covariance_is_kept_exactly_and_the_rows_are_others() -> None:
    rng = np.random.default_rng(0)
    for rows in (10, 60):  # fewer rows than columns, and more
        weight = rng.normal(size=(rows, 20)) * np.linspace(0.1, 3, 20) + 5
        other = same_covariance(rng, weight)
        np.testing.assert_allclose(other.mean(axis=0), weight.mean(axis=0))
        np.testing.assert_allclose(np.cov(other.T), np.cov(weight.T), atol=1e-10)
        assert not np.allclose(other, weight, atol=0.1)


@pytest.mark.parametrize(("offset", "stretch", "clustered"), [(3.0, 1, True), (0.0, 1, False), (0.0, 10, False)])
def test_a_base_with_planted_clusters_is_above_both_nulls_and_a_stretched_one_is_not(
    tmp_path: Path, offset: float, stretch: int, clustered: bool
) -> None:
    rng = np.random.default_rng(0)
    centres = offset * rng.normal(size=(3, 8))[np.arange(60) % 3]
    names = [f"model.layers.{layer}.x.{name}.weight" for layer in range(2) for name in PROJECTIONS]
    scale = np.array([stretch, *[1.0] * 7])
    save(tmp_path / "made", {name: centres + scale * rng.normal(size=(60, 8)) for name in names})
    found = run(ROWS, tmp_path)
    above = [
        np.mean([p.mean for p in found if p.quantity == f"above_{null}"]) for null in ("gaussian", "same_covariance")
    ]
    assert (above[1] == 1.0) if clustered else (above[1] < 0.6)
    assert (above[0] == 1.0) == (clustered or stretch > 1)  # anything stretched beats a Gaussian
    excess = [p for p in found if p.quantity == "excess_over_gaussian"]
    assert all((p.mean > 0) == (p.low > 0) for p in excess) or not clustered


def test_a_base_without_these_weights_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "made", {"model.layers.0.x.q_proj.weight": np.ones((4, 4))})
    with pytest.raises(ValueError, match="1 bf16 q_proj weights"):
        run(replace(ROWS), tmp_path)
