"""Whether the measure of row clusters sees clusters where there are some, and none where there are none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reproduction.theory.clusters import explained, kmeans
from reproduction.theory.rows import PROJECTIONS, Rows, read_bfloat16, run, same_covariance

SETTINGS = Rows(seed=0, bases=("made",), k=3, null_draws=3)


def share(weight: np.ndarray) -> float:
    return explained(weight, kmeans(weight, 3, rng=np.random.default_rng(0)))


def save(folder: Path, weights: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    save_file({name: torch.tensor(w).bfloat16() for name, w in weights.items()}, folder / "model.safetensors")


def base(tmp_path: Path, offset: float) -> list:
    rng = np.random.default_rng(0)
    centres = offset * rng.normal(size=(3, 8))[np.arange(60) % 3]
    names = [f"model.layers.{layer}.x.{name}.weight" for layer in range(2) for name in PROJECTIONS]
    save(tmp_path / "made", {name: centres + rng.normal(size=(60, 8)) for name in names})
    return run(SETTINGS, tmp_path)


def test_bfloat16_is_read_as_the_numbers_it_holds(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5, 0.0], [3.14159, 2.0**-20, -1e30]])
    save(tmp_path / "made", {"a": values})
    found = read_bfloat16(tmp_path / "made" / "model.safetensors")["a"]
    np.testing.assert_array_equal(found, torch.tensor(values).bfloat16().double().numpy())
    np.testing.assert_allclose(found, values, rtol=2**-8)


def test_the_same_covariance_is_kept_exactly_and_the_rows_are_others() -> None:
    rng = np.random.default_rng(0)
    for rows in (10, 60):  # fewer rows than columns, and more
        weight = rng.normal(size=(rows, 20)) * np.linspace(0.1, 3, 20) + 5
        other = same_covariance(rng, weight)
        np.testing.assert_allclose(other.mean(axis=0), weight.mean(axis=0))
        np.testing.assert_allclose(np.cov(other.T), np.cov(weight.T), atol=1e-10)
        assert not np.allclose(other, weight, atol=0.1)


def test_stretched_rows_are_no_clusters_but_planted_ones_are() -> None:
    rng = np.random.default_rng(0)
    stretched = rng.normal(size=(200, 10)) * np.array([10.0, *[1.0] * 9])
    planted = rng.normal(size=(200, 10)) + 6 * rng.normal(size=(3, 10))[np.arange(200) % 3]
    for weight, clustered in ((stretched, False), (planted, True)):
        nulls = [share(same_covariance(rng, weight)) for _ in range(10)]
        assert share(weight) > 2 * share(rng.normal(size=weight.shape))  # both beat a Gaussian
        assert (share(weight) > max(nulls) + 0.05) == clustered


def test_a_base_with_planted_clusters_is_above_both_nulls_and_a_gaussian_one_is_not(tmp_path: Path) -> None:
    for offset, clustered in ((3.0, True), (0.0, False)):
        found = base(tmp_path / str(offset), offset)
        above = [point.mean for point in found if point.quantity in ("above_gaussian", "above_same_covariance")]
        assert len(above) == 2 * len(PROJECTIONS)
        assert (np.mean(above) == 1.0) if clustered else (np.mean(above) < 0.6)


def test_a_base_without_these_weights_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "made", {"model.layers.0.x.q_proj.weight": np.ones((4, 4))})
    with pytest.raises(ValueError, match="1 bf16 q_proj weights"):
        run(SETTINGS, tmp_path)
