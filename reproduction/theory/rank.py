"""Rank of ID-LoRA's update (§4.2): the paper claims up to k·r; the measured maximum is r.

    u = Σ_i α_i fc([B x_i¹, …, B x_i^s]),   x_i = A_i h      B (out/s, r/s)   A_i (r, in)      (Eq. 4; s = 1: Eq. 3)

fc concatenates B times the s parts of x_i, so it is (I_s ⊗ B) x_i, and I_s ⊗ B is one (out, r) matrix for all i:

    u = (I_s ⊗ B) Σ_i α_i A_i h,    rank ≤ rank(I_s ⊗ B) = s · rank(B) ≤ s · min(r/s, out/s) ≤ r      for every s and k.

The bound also holds for α that depend on the token: every output lies in the column space of I_s ⊗ B, of dimension at
most r. Rank k·r can be reached by the span of the rows of A_1 … A_k, the directions of h that the update reads, and by
Σ_i α_i B_i A_i with a B_i for each expert, as in MoELoRA. With Rank Boosting a B of out·r/s² parameters has rank r;
unsplit, so many parameters have rank r/s² only.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import softmax

from reproduction.theory.estimates import Array, Point, Record, Settings, points

STUDY = "rank"


@dataclass(frozen=True)
class Rank(Settings):
    """Settings of the study.

    Args:
        seed: seed of every draw.
        draws: draws of B, A_i and α per point.
        side: in = out.
        tokens: number of tokens, at least the largest k·r, to make that rank visible.
        ranks: values of r.
        splits: values of s; each divides each r and the side.
        clusters: values of k, the curves' axis.
    """

    seed: int
    draws: int
    side: int
    tokens: int
    ranks: tuple[int, ...]
    splits: tuple[int, ...]
    clusters: tuple[int, ...]


def boosted(basis: Array, splits: int) -> Array:
    """Return I_s ⊗ B, the matrix of x → fc([B x¹, …, B x^s]): basis (out/s, r/s) → (out, r)."""
    return np.kron(np.eye(splits), basis)


def measure(rng: np.random.Generator, settings: Rank, *, r: int, k: int, splits: int) -> Record:
    """Return numerical ranks of one Gaussian draw: the number of singular values above σ_max · max(shape) · ε₆₄.

    `update`: Σ_i α_i fc(B A_i) for fixed α. `outputs_dense`, `outputs_inner`: stacked outputs of all tokens with
    per-token α, softmax(R h) or T·x_i. `inputs`: the directions of h that these read. `separate_b`: Σ_i α_i B_i A_i.
    Statements that are true by definition (k·r with one cluster, a split in one) are omitted.
    """
    side = settings.side
    one = boosted(rng.normal(size=(side // splits, r // splits)), splits)
    frozen = rng.normal(size=(k, r, side))
    own = np.stack([boosted(rng.normal(size=(side // splits, r // splits)), splits) for _ in range(k)])
    alpha, tokens = rng.normal(size=k), rng.normal(size=(settings.tokens, side))
    reduced = np.einsum("krd,td->tkr", frozen, tokens)
    dense = softmax(tokens @ rng.normal(size=(k, side)).T / np.sqrt(side), axis=1)
    inner = reduced @ rng.normal(size=r)
    found = {
        "update": one @ np.einsum("k,krd->rd", alpha, frozen),
        "outputs_dense": np.einsum("tk,tkr->tr", dense, reduced) @ one.T,
        "outputs_inner": np.einsum("tk,tkr->tr", inner, reduced) @ one.T,
        "inputs": np.einsum("tk,krd->trd", dense[: 2 * k], frozen).reshape(-1, side),
        "separate_b": np.einsum("k,kor,krd->od", alpha, own, frozen),
    }
    ranks = {name: float(np.linalg.matrix_rank(matrix)) for name, matrix in found.items()}
    lora = lora_rank(side, r, k=k, splits=splits)
    record = ranks | {
        "lora_at_equal_count": float(lora),
        "update_at_most_r": ranks["update"] <= r,
        "update_reaches_r": ranks["update"] == r,
        "outputs_at_most_r": max(ranks["outputs_dense"], ranks["outputs_inner"]) <= r,
        "above_lora_at_equal_count": ranks["update"] > lora,
    }
    if k > 1:
        record |= {f"{name}_reaches_kr": ranks[name] == k * r for name in ("update", "inputs", "separate_b")}
    if splits > 1:
        record["above_unsplit_b"] = ranks["update"] > r // splits**2
    return record


def lora_rank(side: int, r: int, *, k: int, splits: int) -> int:
    """Return the largest rank of a LoRA within ID-LoRA's parameter count out·r/s² + k·in (dense router)."""
    return (side * r // splits**2 + k * side) // (2 * side)


def run(settings: Rank) -> list[Point]:
    """Compute ranks over the number of clusters, for every r and s. Deterministic given `settings.seed`."""
    found = []
    for r, s, k in product(settings.ranks, settings.splits, settings.clusters):
        rngs = (np.random.default_rng([settings.seed, draw, r, s, k]) for draw in range(settings.draws))
        records = [measure(rng, settings, r=r, k=k, splits=s) for rng in rngs]
        found += points(records, study=STUDY, setting=f"r={r}", series=f"s={s}", clusters=k)
    return found
