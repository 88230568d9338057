"""The premise of §4.1: do the rows of a weight form clusters? k-means on them, against matrices that have none.

`trained` is the weight. `gaussian` has its shape and independent entries. `same_covariance` has exactly the mean and
covariance of its rows, so it is stretched alike, and is otherwise random: what the weight explains beyond it would be
clusters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import deserialize

from reproduction.theory.clusters import Array, explained, kmeans
from reproduction.theory.estimates import Point, points

STUDY = "rows"
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Rows:
    """Settings: ``bases`` by name, ``k`` clusters, ``null_draws`` matrices of each null per weight."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    seed: int
    bases: tuple[str, ...]
    k: int
    null_draws: int


def read_bfloat16(path: Path) -> dict[str, Array]:
    """The bf16 tensors of a safetensors file as float64, by name; numpy has no bf16, a float32 has its upper half.

    Raises OSError where it cannot be read. Leaves out tensors of other types.
    """
    found = {}
    for name, raw in deserialize(path.read_bytes()):
        if raw["dtype"] == "BF16":
            upper = np.frombuffer(raw["data"], dtype="<u2").astype("<u4") << 16
            found[name] = upper.view("<f4").astype(np.float64).reshape(raw["shape"])
    return found


def same_covariance(rng: np.random.Generator, weight: Array) -> Array:
    """Rows with exactly the weight's mean and covariance and nothing else of it: (n, d) → (n, d).

    W - 1μᵀ = U S Vᵀ, with U replaced by a uniformly random orthonormal matrix that is orthogonal to 1. For a Gaussian
    W this is exchangeable with W itself; rows from a Gaussian with the estimated covariance would be stretched more.
    """
    mean = weight.mean(axis=0)
    _, values, vectors = np.linalg.svd(weight - mean, full_matrices=False)
    values, vectors = values[: len(weight) - 1], vectors[: len(weight) - 1]
    draws = rng.normal(size=(len(weight), len(values)))
    return mean + np.linalg.qr(draws - draws.mean(axis=0))[0] * values @ vectors


def run(settings: Rows, bases: Path) -> list[Point]:
    """Between-cluster share of the row variance for every projection of every base; one draw is one layer.

    ``bases`` is the folder that holds them. Each null is averaged over ``null_draws`` per layer first. Beside the
    share: its excess over each null, and whether it is above all draws of that null.
    Raises ValueError for a base without such weights, OSError for one that is not there.
    """
    return [point for name in settings.bases for point in _of_base(settings, name, bases / name / "model.safetensors")]


def _of_base(settings: Rows, name: str, path: Path) -> Iterator[Point]:
    weights = read_bfloat16(path)
    for position, projection in enumerate(PROJECTIONS):
        layers = [weights[key] for key in sorted(weights) if key.endswith(f".{projection}.weight")]
        if len(layers) < 2:
            raise ValueError(f"{path} has {len(layers)} bf16 {projection} weights; an interval over layers needs two")
        records = []
        for layer, weight in enumerate(layers):
            rng = np.random.default_rng([settings.seed, position, layer])
            share = _share(weight, settings.k, rng)
            record = {"trained": share}
            for null, draw in (("gaussian", _gaussian), ("same_covariance", same_covariance)):
                shares = np.array([_share(draw(rng, weight), settings.k, rng) for _ in range(settings.null_draws)])
                record |= {
                    null: float(shares.mean()),
                    f"excess_over_{null}": share - float(shares.mean()),
                    f"above_{null}": bool(share > shares.max()),
                }
            records.append(record)
        yield from points(records, study=STUDY, setting=name, series=projection, x_name="projection", x=float(position))


def _share(weight: Array, k: int, rng: np.random.Generator) -> float:
    return explained(weight, kmeans(weight, k, rng=rng, starts=2))


def _gaussian(rng: np.random.Generator, weight: Array) -> Array:
    return rng.normal(size=weight.shape)
