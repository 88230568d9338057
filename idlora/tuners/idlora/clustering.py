"""PMRC, the parameter matrix row clustering of the ID-LoRA paper (§4.1), and the selections it is compared with.

W (out, in)  ->  pivots (k, r):  pivots[i] are the indices of the r rows that make A_i = W[pivots[i]]
"""

import hashlib
from typing import NamedTuple

import numpy as np
import torch

METHODS = ("pmrc", "serial", "random", "pivoted_qr", "smallest_norm", "largest_norm")


class Clustering(NamedTuple):
    """What PMRC finds in a weight: pivots (k, r), nearest to their cluster's mean first, and the clusters' sizes."""

    pivots: torch.Tensor
    sizes: tuple[int, ...]


# k-means over a large layer takes seconds, its result a few kilobytes: results are kept for the life of the process.
_pmrc_results: dict[tuple, Clustering] = {}


def select_pivots(
    weight: torch.Tensor,
    num_clusters: int,
    r: int,
    *,
    method: str = "pmrc",
    seed: int = 0,
    n_init: int = 1,
    max_iter: int = 100,
) -> torch.Tensor:
    """Choose the rows of a weight that serve as the frozen A_i.

    `pmrc` (paper §4.1): W is divided by the standard deviation of its entries; constrained k-means with at least r
    rows per cluster (Levy-Kramer's k-means-constrained) splits its rows; of every cluster the r rows nearest to the
    mean are taken, nearest first. The division makes the result independent of the scale of W, and is needed: the
    solver rounds distances to 1/1000, which at the scale of trained weights is too coarse. `serial` takes rows
    0 … k·r-1 in order, `random` takes k·r rows uniformly without replacement.

    The other three rank the rows of W by themselves, know no clusters, and deal the first k·r of the ranking like
    cards, row 1 to A_1, row 2 to A_2, …: every A_i then gets rows of every rank and the router starts between equals,
    where k runs of r rows would make A_1 the best and A_k the worst. `pivoted_qr` is the interpolative decomposition
    proper: QR of Wᵀ with column pivoting (LAPACK's geqp3 in float64) takes the row farthest from the span of those
    before it, again and again. `smallest_norm` and `largest_norm` go by Euclidean norm; of equals the first row.

    Args:
        weight: W, shape (out, in), any floating type and device; not changed.
        num_clusters: k.
        r: rows per cluster.
        method: one of `METHODS`.
        seed: of k-means' start or of the random draw; the other selections draw nothing.
        n_init: k-means starts, the best of which is kept. The paper does not say how many; more cost in proportion.
        max_iter: k-means iterations of one start at most.

    Returns:
        int32 tensor (k, r) on the CPU, k·r different row indices. The same arguments give the same result; for
        `pmrc` it is remembered by the content of W, so asking again costs one hash of W.

    Raises:
        ValueError: sizes that do not fit, an unknown method, or entries of W that are not finite.

    Leaves out sampling or approximating large W, stopping the QR after k·r columns (scipy's does all of them), and any
    store of results beyond the process.
    """
    weight = _checked(weight, num_clusters, r)
    wanted = num_clusters * r
    if method == "pmrc":
        pivots = _clustering(weight, num_clusters, r, seed=seed, n_init=n_init, max_iter=max_iter).pivots
    elif method == "serial":
        pivots = torch.arange(wanted)
    elif method == "random":
        pivots = torch.from_numpy(np.random.default_rng(seed).permutation(len(weight))[:wanted])
    elif method in METHODS:
        pivots = torch.from_numpy(_ranking(weight, method)[:wanted].copy()).view(r, num_clusters).T
    else:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, not {method!r}")
    return pivots.to(torch.int32, copy=True).reshape(num_clusters, r)


def cluster_sizes(
    weight: torch.Tensor, num_clusters: int, r: int, *, seed: int = 0, n_init: int = 1, max_iter: int = 100
) -> tuple[int, ...]:
    """Rows in each of the k clusters out of which `select_pivots` takes PMRC's pivots; same arguments, same memory."""
    weight = _checked(weight, num_clusters, r)
    return _clustering(weight, num_clusters, r, seed=seed, n_init=n_init, max_iter=max_iter).sizes


def _checked(weight: torch.Tensor, num_clusters: int, r: int) -> torch.Tensor:
    """The weight, detached and on the CPU, if it has k·r rows to give."""
    if weight.dim() != 2:
        raise ValueError(f"weight must have two dimensions (out, in), not shape {tuple(weight.shape)}")
    rows = weight.shape[0]
    if num_clusters < 1 or r < 1 or num_clusters * r > rows:
        raise ValueError(f"cannot take {num_clusters} clusters of {r} rows from {rows} rows")
    weight = weight.detach().cpu()
    if not torch.isfinite(weight).all():
        raise ValueError(f"{int((~torch.isfinite(weight)).sum())} of the weight's entries are not finite")
    return weight


def _clustering(weight: torch.Tensor, k: int, r: int, *, seed: int, n_init: int, max_iter: int) -> Clustering:
    key = (_digest(weight), k, r, seed, n_init, max_iter)
    if key not in _pmrc_results:
        _pmrc_results[key] = _pmrc(weight, k, r, seed=seed, n_init=n_init, max_iter=max_iter)
    return _pmrc_results[key]


def _ranking(weight: torch.Tensor, method: str) -> np.ndarray:
    """All row indices of W (out, in), the method's first choice first."""
    rows = weight.double().numpy()
    if method == "pivoted_qr":
        from scipy.linalg import qr  # a control's alone: who loads an adapter needs no scipy

        return qr(rows.T, mode="r", pivoting=True, check_finite=False)[1]
    norms = np.linalg.norm(rows, axis=1)
    return np.argsort(norms if method == "smallest_norm" else -norms, kind="stable")


def _digest(weight: torch.Tensor) -> str:
    """SHA-256 of a tensor's type, shape and content."""
    digest = hashlib.sha256(f"{weight.dtype} {tuple(weight.shape)} ".encode())
    digest.update(weight.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _pmrc(weight: torch.Tensor, k: int, r: int, *, seed: int, n_init: int, max_iter: int) -> Clustering:
    # Imported here because it brings the solver along, which most users of an adapter (loading one) never need.
    from k_means_constrained import KMeansConstrained

    scaled = weight.double()
    spread = scaled.std(correction=0).item()
    if spread > 0:  # a constant matrix has rows to choose from, but no scale
        scaled = scaled / spread
    scaled = scaled.float().numpy()
    # n_jobs=1: more processes get a read-only copy of the rows, on which the library fails.
    kmeans = KMeansConstrained(
        n_clusters=k, size_min=r, n_init=n_init, max_iter=max_iter, random_state=seed, n_jobs=1
    ).fit(scaled)
    pivots = np.stack([_nearest_to_mean(scaled, kmeans.labels_ == i, r) for i in range(k)])
    return Clustering(torch.from_numpy(pivots), tuple(np.bincount(kmeans.labels_, minlength=k).tolist()))


def _nearest_to_mean(rows: np.ndarray, members: np.ndarray, r: int) -> np.ndarray:
    """The indices of the r members nearest to the members' mean, nearest first; of equals the first row."""
    indices = np.flatnonzero(members)
    cluster = rows[indices].astype(np.float64)
    distances = np.square(cluster - cluster.mean(axis=0)).sum(axis=1)
    return indices[np.argsort(distances, kind="stable")[:r]]
