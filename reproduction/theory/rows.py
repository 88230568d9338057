"""Premise of §4.1, clusters in the rows of a weight: k-means on the rows, compared with matrices without clusters.

`trained` is the weight. `gaussian` has its shape and independent entries. `same_covariance` has exactly the mean and
covariance of its rows, and is otherwise random: clusters would make the weight's explained share larger than its.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import deserialize

from reproduction.theory.estimates import Array, Point, Settings, explained, kmeans, points

STUDY = "rows"
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Rows(Settings):
    """Settings of the study.

    Args:
        seed: seed of k-means and the nulls.
        bases: names of the small bases.
        k: number of clusters.
        null_draws: matrices of each null per weight.
    """

    seed: int
    bases: tuple[str, ...]
    k: int
    null_draws: int


def read_bfloat16(path: Path) -> dict[str, Array]:
    """Read the bf16 tensors of a safetensors file as float64; bf16, unknown to numpy, is a float32's upper half."""
    found = {}
    for name, raw in deserialize(path.read_bytes()):
        if raw["dtype"] == "BF16":
            upper = np.frombuffer(raw["data"], dtype="<u2").astype("<u4") << 16
            found[name] = upper.view("<f4").astype(np.float64).reshape(raw["shape"])
    return found


def same_covariance(rng: np.random.Generator, weight: Array) -> Array:
    """Draw random rows with exactly the weight's mean and covariance: (n, d) → (n, d).

    W - 1μᵀ = U S Vᵀ, with U replaced by a uniformly random orthonormal matrix that is orthogonal to 1. For a Gaussian
    W this is exchangeable with W itself; rows from a Gaussian with the estimated covariance would be stretched more.
    """
    mean = weight.mean(axis=0)
    _, values, vectors = np.linalg.svd(weight - mean, full_matrices=False)
    values, vectors = values[: len(weight) - 1], vectors[: len(weight) - 1]
    draws = rng.normal(size=(len(weight), len(values)))
    return mean + np.linalg.qr(draws - draws.mean(axis=0))[0] * values @ vectors


def run(settings: Rows, bases: Path) -> list[Point]:
    """Compute the between-cluster share of row variance for every projection of every base; one draw is one layer.

    Each null is first averaged over `null_draws` per layer. Also: the share's excess over each null, and whether it is
    above all draws of that null. Raises ValueError for a base without such weights, OSError for a missing one.
    """
    found = []
    for name in settings.bases:
        path = bases / name / "model.safetensors"
        weights = read_bfloat16(path)
        for position, projection in enumerate(PROJECTIONS):
            layers = [weights[key] for key in sorted(weights) if key.endswith(f".{projection}.weight")]
            if len(layers) < 2:
                raise ValueError(f"{path} has {len(layers)} bf16 {projection} weights; an interval needs two layers")
            records = [_record(w, settings, [settings.seed, position, layer]) for layer, w in enumerate(layers)]
            found += points(records, study=STUDY, setting=name, series=projection, projection=position)
    return found


def _record(weight: Array, settings: Rows, seed: list[int]) -> dict[str, float | bool]:
    rng = np.random.default_rng(seed)

    def share(matrix: Array) -> float:
        return explained(matrix, kmeans(matrix, settings.k, rng=rng, starts=2))

    trained = share(weight)
    record: dict[str, float | bool] = {"trained": trained}
    nulls = {"gaussian": lambda: rng.normal(size=weight.shape), "same_covariance": lambda: same_covariance(rng, weight)}
    for null, draw in nulls.items():
        shares = np.array([share(draw()) for _ in range(settings.null_draws)])
        mean = float(shares.mean())
        record |= {null: mean, f"excess_over_{null}": trained - mean, f"above_{null}": bool(trained > shares.max())}
    return record
