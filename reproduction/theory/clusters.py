"""k-means, and how much of a set's variance its clusters explain."""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import ClusterError, kmeans2

Array = NDArray[np.float64]
Labels = NDArray[np.intp]

ITERATIONS = 20


def kmeans(vectors: Array, k: int, *, rng: np.random.Generator, starts: int = 3) -> Labels:
    """Cluster of each vector, by Lloyd's iterations from k-means++ starts (scipy's), the best of ``starts``.

    Args:
        vectors: (n, d) float.
        k: number of clusters, all of which come out non-empty.
        rng: draws the starts.
        starts: how many are tried; one that empties a cluster does not count as a result.

    Returns:
        Labels (n,) in 0 … k-1.

    Raises:
        ValueError: k does not fit n, or every start emptied a cluster.

    Leaves out the minimum cluster size of §4.1, which the theorems do not use.
    """
    if not 1 <= k <= len(vectors):
        raise ValueError(f"cannot make {k} clusters of {len(vectors)} vectors; k must lie between 1 and their number")
    if k == 1:
        return np.zeros(len(vectors), dtype=np.intp)
    if vectors.shape[1] > len(vectors):  # coordinates in the span of the vectors: the same distances, fewer numbers
        vectors = np.linalg.qr(vectors.T, mode="r").T
    found: list[tuple[float, Labels]] = []
    for _ in range(starts):
        try:
            _, labels = kmeans2(vectors, k, iter=ITERATIONS, minit="++", rng=rng, missing="raise", check_finite=False)
        except ClusterError:
            continue
        labels = labels.astype(np.intp)
        if len(np.unique(labels)) == k:
            found.append((explained(vectors, labels), labels))
    if not found:
        raise ValueError(f"none of {starts} starts of k-means kept {k} clusters of {len(vectors)} vectors non-empty")
    return max(found, key=lambda each: each[0])[1]


def means(values: Array, labels: Labels) -> Array:
    """Mean of each cluster's members: values (n, …), labels (n,) in 0 … k-1 → (k, …)."""
    return np.stack([values[labels == cluster].mean(axis=0) for cluster in range(labels.max() + 1)])


def explained(vectors: Array, labels: Labels) -> float:
    """Between-cluster share of the variance, Σ_i ‖μ_l(i) - μ‖² / Σ_i ‖x_i - μ‖²: vectors (n, d) → 0 … 1."""
    centred = vectors - vectors.mean(axis=0)
    return float(np.square(means(centred, labels)[labels]).sum() / np.square(centred).sum())


def same_partition(one: Labels, other: Labels) -> bool:
    """Whether two labellings (n,) put the same items together, whatever the clusters are called."""
    pairs = np.unique(np.stack([one, other]), axis=1).shape[1]
    return pairs == len(np.unique(one)) == len(np.unique(other))
