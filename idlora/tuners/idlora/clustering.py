"""PMRC, the parameter matrix row clustering of the ID-LoRA paper (§4.1), and the selections it is compared with.

W (out, in)  ->  pivots (k, r):  pivots[i] are the indices of the r rows that make A_i = W[pivots[i]]
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch

from idlora.tuners.idlora.kmeans import cluster_rows, nearest_rows
from idlora.tuners.idlora.streaming import Batch, BlockedWeight, WorkingCopies, scaled

METHODS = ("pmrc", "serial", "random", "pivoted_qr", "smallest_norm", "largest_norm")
BACKENDS = ("torch", "k_means_constrained")

Weight = torch.Tensor | BlockedWeight


class Selection(NamedTuple):
    """The pivots (k, r) of a weight, int32 on the CPU, and the rows in each of the clusters that they were taken from.

    PMRC's alone are taken from clusters: nearest to the cluster's mean first. The other methods have no sizes.
    """

    pivots: torch.Tensor
    sizes: tuple[int, ...] | None = None


def select_pivots(
    weight: torch.Tensor,
    num_clusters: int,
    r: int,
    *,
    method: str = "pmrc",
    seed: int = 0,
    n_init: int = 1,
    max_iter: int = 100,
    backend: str = "torch",
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Choose the rows of a weight that serve as the frozen A_i.

    `pmrc` (paper §4.1): constrained k-means with at least r rows per cluster splits the rows of W; of every cluster
    the r rows nearest to the mean are taken, nearest first. `serial` takes rows 0 … k·r-1 in order, `random` takes k·r
    rows uniformly without replacement.

    `backend` says who clusters. `torch` is `kmeans.cluster_rows` (squared distances, an exact assignment), on any
    device: the 224 matrices of LLaMA-3-8B took 4.1 s on an H200 (k = 4, r = 128; `results/h200`).
    `k_means_constrained` is Levy-Kramer's library, which the paper names; W is divided by the standard deviation of its
    entries first, for the library rounds distances to 1/1000, which at the scale of trained weights is too coarse. It
    also assigns by unsquared distance, and needs some 20 minutes for an 8B model. Both solve the same problem and are
    independent of the scale of W; they draw other starts from the same seed, so their pivots differ as those of two
    seeds do.

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
        max_iter: k-means iterations of one descent at most.
        backend: one of `BACKENDS`; matters to `pmrc` alone.
        device: where the torch backend works; None is where W is, except that a W on the CPU is sent to CUDA if there
            is any. Everything else is done on the CPU.

    Returns:
        int32 tensor (k, r) on the CPU, k·r different row indices. The same arguments give the same result on the same
        kind of device (CPUs: with as many threads); another rounds products otherwise, and a row between two clusters
        may change sides.

    Raises:
        ValueError: sizes that do not fit, an unknown method or backend, or entries of W that are not finite.

    Leaves out sampling or approximating large W, stopping the QR after k·r columns (scipy's does all of them), and
    remembering a result: what an adapter selected is kept by `pivot_cache`.
    """
    return select_pivots_many(
        [(None, weight)],
        num_clusters,
        r,
        method=method,
        seed=seed,
        n_init=n_init,
        max_iter=max_iter,
        backend=backend,
        device=device,
    )[None].pivots


def select_pivots_many(
    weights: Iterable[tuple[str | None, Weight | Callable[[], Weight]]],
    num_clusters: int,
    r: int,
    *,
    method: str = "pmrc",
    seed: int = 0,
    n_init: int = 1,
    max_iter: int = 100,
    backend: str = "torch",
    device: torch.device | str | None = None,
) -> dict[str | None, Selection]:
    """`select_pivots` for every weight of a model, which need not be in memory all at once.

    On an accelerator the torch backend collects float32 working copies of equal shapes and clusters them together;
    they take `streaming.BATCH_BYTES` at most, or a quarter of the memory that is free. On the CPU there is one at a
    time. Batches change nothing: every product is of one matrix, so each weight's pivots are those it has alone.

    Args:
        weights: names and weights, in any order and of any shapes. A weight is a tensor (out, in), a `BlockedWeight`,
            or a function that makes one; it is read before the next is asked for and never after. A generator over a
            checkpoint (safetensors' `safe_open`) or over gathered parameters therefore holds one at a time.
        The others are `select_pivots`'.

    Returns:
        By name, in the order of `weights`: the pivots, with the sizes of PMRC's clusters.

    Raises:
        ValueError: as `select_pivots`, with the name and a colon in front.

    Leaves out a second reading for those that ran out of memory, and work on several devices at once.
    """
    _require("method", method, METHODS)
    _require("backend", backend, BACKENDS)
    kmeans = {"k": num_clusters, "r": r, "seed": seed, "n_init": n_init, "max_iter": max_iter}
    if method == "pmrc" and backend == "torch":
        return _by_torch(weights, device=device, **kmeans)
    found = {}
    for name, weight in weights:
        try:
            whole = _whole(_sized(weight, num_clusters, r))
            if method == "pmrc":
                found[name] = _by_library(whole, **kmeans)
            else:
                found[name] = Selection(_without_clusters(whole, num_clusters, r, method=method, seed=seed))
        except ValueError as error:
            raise _named(name, error) from error
    return found


def _without_clusters(weight: torch.Tensor, k: int, r: int, *, method: str, seed: int) -> torch.Tensor:
    if method == "serial":
        rows = np.arange(k * r)
    elif method == "random":
        rows = np.random.default_rng(seed).permutation(len(weight))[: k * r]
    else:
        rows = _ranking(weight, method)[: k * r].reshape(r, k).T
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int32)).reshape(k, r)


def _sized(weight: Weight | Callable[[], Weight], k: int, r: int) -> Weight:
    """The weight, made if need be, if it has k·r rows to give."""
    if callable(weight):
        weight = weight()
    if len(weight.shape) != 2:
        raise ValueError(f"weight must have two dimensions (out, in), not shape {tuple(weight.shape)}")
    rows = weight.shape[0]
    if k < 1 or r < 1 or k * r > rows:
        raise ValueError(f"cannot take {k} clusters of {r} rows from {rows} rows")
    return weight


def _whole(weight: Weight) -> torch.Tensor:
    """The weight as a tensor on the CPU, detached, if its entries are finite."""
    weight = (weight if isinstance(weight, torch.Tensor) else torch.cat(list(weight.blocks()))).detach().cpu()
    if not torch.isfinite(weight).all():
        raise ValueError(f"{int((~torch.isfinite(weight)).sum())} of the weight's entries are not finite")
    return weight


def _require(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def _named(name: str | None, error: ValueError) -> ValueError:
    return error if name is None else ValueError(f"no pivots for {name}: {error}")


def _by_torch(
    weights: Iterable[tuple[str | None, Weight | Callable[[], Weight]]],
    *,
    device: torch.device | str | None,
    **kmeans: int,
) -> dict[str | None, Selection]:
    """PMRC of every weight, by name, in their order."""
    found: dict[str | None, Selection | None] = {}
    waiting = WorkingCopies(device)
    for name, weight in weights:
        found[name] = None
        try:
            weight = _sized(weight, kmeans["k"], kmeans["r"])
        except ValueError as error:
            raise _named(name, error) from error
        for batch in waiting.add(name, weight):
            found.update(_clusterings(batch, **kmeans))
            del batch  # its memory is the next one's
        del weight
    for batch in waiting.rest():
        found.update(_clusterings(batch, **kmeans))
        del batch
    return found


def _clusterings(batch: Batch, *, k: int, r: int, **kmeans: int) -> dict[str | None, Selection]:
    copies = scaled(batch)
    clusters = cluster_rows(copies, k, r, **kmeans)
    return {
        name: Selection(
            nearest_rows(copy, found, r).to(torch.int32), tuple(torch.bincount(found.labels, minlength=k).tolist())
        )
        for name, copy, found in zip(batch.names, copies, clusters, strict=True)
    }


def _ranking(weight: torch.Tensor, method: str) -> np.ndarray:
    """All row indices of W (out, in), the method's first choice first."""
    rows = weight.double().numpy()
    if method == "pivoted_qr":
        from scipy.linalg import qr  # a control's alone: who loads an adapter needs no scipy

        return qr(rows.T, mode="r", pivoting=True, check_finite=False)[1]
    norms = np.linalg.norm(rows, axis=1)
    return np.argsort(norms if method == "smallest_norm" else -norms, kind="stable")


def _by_library(weight: torch.Tensor, *, k: int, r: int, seed: int, n_init: int, max_iter: int) -> Selection:
    try:
        from k_means_constrained import KMeansConstrained  # only who chooses it needs it
    except ImportError as error:
        raise ValueError(
            f"backend 'k_means_constrained' needs the package k-means-constrained ({error}): "
            "install it, or take 'torch'"
        ) from error

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
    sizes = np.bincount(kmeans.labels_, minlength=k)
    return Selection(torch.from_numpy(pivots.astype(np.int32)), tuple(sizes.tolist()))


def _nearest_to_mean(rows: np.ndarray, members: np.ndarray, r: int) -> np.ndarray:
    """The indices of the r members nearest to the members' mean, nearest first; of equals the first row."""
    indices = np.flatnonzero(members)
    cluster = rows[indices].astype(np.float64)
    distances = np.square(cluster - cluster.mean(axis=0)).sum(axis=1)
    return indices[np.argsort(distances, kind="stable")[:r]]
