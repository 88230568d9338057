"""The clustered low-rank decomposition in its three readings, and Δ (Theorem 1).

    W̃_i = B A_l(i)        B (p, r), shared        A (k, r, q), one per cluster        global: the same with k = 1

The paper's text does not fix one decomposition. `assumed` is what its proof uses, `definition4` what its definition
says, `joint` the best of all decompositions of this form.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from reproduction.theory.clusters import Array, Labels, means
from reproduction.theory.tasks import Tasks


@dataclass(frozen=True)
class Decomposition:
    """``basis`` B (p, r), ``codes`` A_l (k, r, q), ``labels`` l(i) (m,)."""

    basis: Array
    codes: Array
    labels: Labels

    @property
    def reconstruction(self) -> Array:
        """W̃_i = B A_l(i) (Eq. 16), (m, p, q)."""
        return (self.basis @ self.codes)[self.labels]


def squared_errors(matrices: Array, found: Decomposition) -> Array:
    """‖W*_i - W̃_i‖²_F of every task: matrices (m, p, q) → (m,)."""
    return np.square(matrices - found.reconstruction).sum(axis=(1, 2))


def shifts(clustered: Decomposition, global_code: Array) -> Array:
    """B (A_l(i) - A_global) for every task, (m, p, q): B is the clustered one's, ``global_code`` (r, q) is A_global."""
    return (clustered.basis @ (clustered.codes - global_code))[clustered.labels]


def delta(clustered: Decomposition, global_code: Array) -> float:
    """Δ = Σ_l Σ_{i∈C_l} ‖B (A_l(i) - A_global)‖²_F (below Eq. 18)."""
    return float(np.square(shifts(clustered, global_code)).sum())


def mean_code(clustered: Decomposition) -> Array:
    """The best single code for the clustered decomposition's own B, (r, q): the mean of A_l(i) over tasks."""
    return clustered.codes[clustered.labels].mean(axis=0)


def assumed(tasks: Tasks, labels: Labels) -> Decomposition:
    """The proof's reading: B and A_i of Assumption 2 are known, A_l is the mean of its cluster's A_i (Eq. 19-21).

    Leaves out how B and A_i would be found from W*_i alone: they are not identified (B G, G⁻¹ A_i serve as well).
    """
    return Decomposition(tasks.basis, means(tasks.codes, labels), labels)


def definition4(matrices: Array, labels: Labels, rank: int, *, scaled: bool = False) -> Decomposition:
    """Definition 4 as written: A_l from the rank-r truncated SVD of the centroid M_l, then B by least squares (Eq. 15).

    matrices (m, p, q), labels (m,). A_l holds the leading right singular vectors of M_l, times their singular values if
    ``scaled`` (the definition does not say). Their signs are arbitrary; here each one's largest entry is positive.
    B = (Σ_l |C_l| M_l A_lᵀ) (Σ_l |C_l| A_l A_lᵀ)⁺. With one cluster B A_1 is the truncated SVD of the mean.
    """
    centroids = means(matrices, labels)
    _, values, vectors = np.linalg.svd(centroids, full_matrices=False)
    codes = vectors[:, :rank]
    largest = np.take_along_axis(codes, np.abs(codes).argmax(axis=2, keepdims=True), axis=2)
    codes = codes * np.where(largest < 0, -1.0, 1.0)
    if scaled:
        codes = values[:, :rank, None] * codes
    sizes = np.bincount(labels)
    moment = np.einsum("l,lpq,lrq->pr", sizes, centroids, codes)
    gram = np.einsum("l,lrq,lsq->rs", sizes, codes, codes)
    return Decomposition(moment @ np.linalg.pinv(gram, hermitian=True), codes, labels)


def sign_range(matrices: Array, found: Decomposition) -> tuple[float, float]:
    """Least and greatest Σ ‖W*_i - W̃_i‖² of `definition4` over the 2^{r(k-1)} choices of its singular vectors' signs.

    Unscaled, A_l A_lᵀ = I: B = (1/m) Σ_l |C_l| M_l A_lᵀ and the error is Σ ‖W*_i‖² - m ‖B‖²_F. Column j of B depends
    on the j-th signs alone, so that 2^{k-1} choices a column are enough.
    """
    weights = np.bincount(found.labels) / len(found.labels)
    parts = np.einsum("l,lpq,lrq->lrp", weights, means(matrices, found.labels), found.codes)
    choices = np.array([(1, *rest) for rest in product((1, -1), repeat=len(parts) - 1)])
    energy = np.square(np.einsum("cl,lrp->crp", choices, parts)).sum(axis=2)
    total, m = np.square(matrices).sum(), len(matrices)
    return float(total - m * energy.max(axis=0).sum()), float(total - m * energy.min(axis=0).sum())


def joint(matrices: Array, labels: Labels, rank: int) -> Decomposition:
    """The best shared B and cluster-specific A_l: min over both of Σ ‖W*_i - B A_l(i)‖².

    B holds the r leading left singular vectors of [√|C_1| M_1 … √|C_k| M_k] (Eckart-Young), and A_l = Bᵀ M_l. With one
    cluster it equals `definition4`. A_l = A_global is one of its candidates, so it is never worse than the global one.
    """
    centroids = means(matrices, labels)
    scaled = centroids * np.sqrt(np.bincount(labels))[:, None, None]
    basis = np.linalg.svd(np.concatenate(scaled, axis=1), full_matrices=False)[0][:, :rank]
    return Decomposition(basis, basis.T @ centroids, labels)
