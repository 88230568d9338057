"""PMRC, the parameter matrix row clustering of the ID-LoRA paper (§4.1), and the control selections.

W (out, in)  ->  pivots (k, r):  pivots[i] are the indices of the r rows of A_i = W[pivots[i]]
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from idlora.tuners.idlora.kmeans import cluster_rows, nearest_rows

SelectionMethod = Literal["pmrc", "serial", "random", "pivoted_qr", "smallest_norm", "largest_norm"]
KmeansBackend = Literal["torch", "k_means_constrained"]
METHODS, BACKENDS = get_args(SelectionMethod), get_args(KmeansBackend)


class Selection(NamedTuple):
    """Pivots (k, r) of a weight, int32 on the CPU, and for PMRC the number of rows in each cluster."""

    pivots: torch.Tensor
    sizes: tuple[int, ...] | None = None


def select_pivots(
    weight: torch.Tensor,
    num_clusters: int,
    r: int,
    *,
    method: SelectionMethod = "pmrc",
    seed: int = 0,
    n_init: int = 1,
    max_iter: int = 100,
    backend: KmeansBackend = "torch",
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Choose the rows of a weight that serve as the frozen A_i.

    `pmrc` (§4.1) clusters the rows of W by constrained k-means with at least r rows a cluster, and takes from every
    cluster the r rows nearest to the mean, nearest first. `serial` takes rows 0 … k·r-1 in order, `random` takes k·r
    rows uniformly without replacement.

    The others rank the rows and distribute the first k·r in turn, row 1 to A_1, row 2 to A_2, …, so that every A_i gets
    rows of every rank. `pivoted_qr` is the interpolative decomposition itself: QR of Wᵀ with column pivoting (LAPACK's
    geqp3 in float64). `smallest_norm` and `largest_norm` rank by Euclidean norm; ties go to the first row.

    Args:
        weight: W, shape (out, in), any floating type and device; not changed.
        num_clusters: k.
        r: rows per cluster, k·r ≤ out.
        method: selection method, see above.
        seed: seed of k-means++ or of the random draw.
        n_init: number of k-means starts; the best result is used.
        max_iter: largest number of iterations of one k-means descent.
        backend: k-means implementation for `pmrc`. `torch` is `kmeans.cluster_rows`, on any device.
            `k_means_constrained` is the library that the paper names; it runs on the CPU and takes 20 minutes for an 8B
            model. W is first divided by the standard deviation of its entries, since the library rounds distances to
            1/1000. Both are independent of W's scale.
        device: device of the torch backend. None is W's device, or CUDA, if available, for a W on the CPU.

    Returns:
        int32 tensor (k, r) on the CPU, k·r different row indices. The same arguments give the same result on the same
        kind of device. On a CPU the number of threads must be the same too (`torch.set_num_threads`): it decides how
        matrix products are split, thus how sums are rounded, which can decide between rows that are almost tied.

    Raises:
        ValueError: sizes that do not fit, an unknown method or backend, or entries of W that are not finite.
    """
    selector = PivotSelector(
        num_clusters=num_clusters,
        r=r,
        method=method,
        seed=seed,
        n_init=n_init,
        max_iter=max_iter,
        backend=backend,
    )
    return selector.select(weight, device).pivots


@dataclass(frozen=True, kw_only=True)
class PivotSelector:
    """The settings of `select_pivots`. Their names are part of the cache's keys."""

    method: SelectionMethod = "pmrc"
    seed: int = 0
    n_init: int = 1
    max_iter: int = 100
    backend: KmeansBackend = "torch"
    num_clusters: int
    r: int

    def __post_init__(self):
        for name, choices in (("method", METHODS), ("backend", BACKENDS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {getattr(self, name)!r}")

    def select(self, weight: torch.Tensor, device: torch.device | str | None = None) -> Selection:
        """See `select_pivots`."""
        k, r = self.num_clusters, self.r
        if weight.dim() != 2:
            raise ValueError(f"weight must have two dimensions (out, in), not shape {tuple(weight.shape)}")
        if k < 1 or r < 1 or k * r > len(weight):
            raise ValueError(f"cannot take {k} clusters of {r} rows from {len(weight)} rows")
        weight = weight.detach()
        if not (low_high := torch.stack(weight.aminmax())).isfinite().all():
            raise ValueError(f"{int((~torch.isfinite(weight)).sum())} of the weight's entries are not finite")
        if self.method == "pmrc" and self.backend == "torch":
            copy = _working_copy(weight, low_high, torch.device(device or work_device(weight)))
            clusters = cluster_rows(copy, k, r, seed=self.seed, n_init=self.n_init, max_iter=self.max_iter)
            sizes = torch.bincount(clusters.labels, minlength=k).tolist()
            return Selection(nearest_rows(copy, clusters, r).to(torch.int32), tuple(sizes))
        if self.method == "pmrc":
            return self._cluster_by_library(weight.cpu())
        if self.method == "serial":
            rows = np.arange(k * r).reshape(k, r)
        elif self.method == "random":
            rows = np.random.default_rng(self.seed).permutation(len(weight))[: k * r].reshape(k, r)
        else:
            rows = _ranking(weight.cpu().double().numpy(), self.method)[: k * r].reshape(r, k).T
        return Selection(torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int32)))

    def _cluster_by_library(self, weight: torch.Tensor) -> Selection:
        try:
            from k_means_constrained import KMeansConstrained  # optional dependency
        except ImportError as error:
            raise ValueError(
                f"backend 'k_means_constrained' needs the package k-means-constrained ({error}): "
                "install it, or take 'torch'"
            ) from error

        rows = weight.double()
        if (spread := rows.std(correction=0).item()) > 0:  # a constant matrix has no scale
            rows = rows / spread
        rows = rows.float()
        # n_jobs=1: several processes get a read-only copy of the rows, on which the library fails.
        kmeans = KMeansConstrained(
            n_clusters=self.num_clusters, size_min=self.r, n_init=self.n_init, max_iter=self.max_iter,
            random_state=self.seed, n_jobs=1,
        ).fit(rows.numpy())  # fmt: skip
        pivots = [_nearest_to_mean(rows.numpy(), kmeans.labels_ == i, self.r) for i in range(self.num_clusters)]
        sizes = np.bincount(kmeans.labels_, minlength=self.num_clusters)
        return Selection(torch.from_numpy(np.stack(pivots).astype(np.int32)), tuple(sizes.tolist()))


def work_device(weight: torch.Tensor) -> torch.device:
    """Return the default device for work on a weight: CUDA, if available, for one on the CPU, else the weight's own."""
    if weight.device.type == "cpu" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return weight.device


def _working_copy(weight: torch.Tensor, low_high: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return W as contiguous float32, scaled by a power of two if squares of its entries would exceed float32."""
    exponent = int(torch.frexp(low_high.double().abs().max()).exponent)
    if abs(exponent) > 50:
        weight = weight.double() * 2.0**-exponent
    return weight.to(device).to(torch.float32).contiguous()  # cast after the transfer: fewer bytes to send


def _ranking(rows: np.ndarray, method: str) -> np.ndarray:
    """Return all row indices of W (out, in), float64, in the method's order of preference."""
    if method == "pivoted_qr":
        from scipy.linalg import qr  # imported here: loading an adapter must not need scipy

        return qr(rows.T, mode="r", pivoting=True, check_finite=False)[1]
    norms = np.linalg.norm(rows, axis=1)
    return np.argsort(norms if method == "smallest_norm" else -norms, kind="stable")


def _nearest_to_mean(rows: np.ndarray, members: np.ndarray, r: int) -> np.ndarray:
    """Return the indices of the r members nearest to the members' mean, nearest first; ties go to the first row."""
    indices = np.flatnonzero(members)
    cluster = rows[indices].astype(np.float64)
    distances = np.square(cluster - cluster.mean(axis=0)).sum(axis=1)
    return indices[np.argsort(distances, kind="stable")[:r]]
