"""k-means of the rows of a matrix with at least r rows in every cluster, on any device.

    min  Σ_n ‖w_n − c_{a(n)}‖²    over centroids c (k, in) and assignments a    subject to  |{n : a(n) = i}| ≥ r

Lloyd's two steps alternate, and each is exact: the cheapest assignment within the bound (Bradley, Bennett & Demiriz,
Constrained K-Means Clustering, 2000), and the means. A cost is ‖c‖² − 2 w·c, since row norms do not change an
assignment. If every cluster gets r rows, the nearest centroids are the assignment; else the costs go to the CPU and
`assignment` computes it.

After Lloyd's steps single rows move between clusters (Hartigan & Wong, 1979). Moving x from i to j changes the
objective by n_j/(n_j + 1) ‖x − c_j‖² − n_i/(n_i − 1) ‖x − c_i‖². This can be negative even if c_i is nearest, since x
pulls c_i towards itself (Telgarsky & Vattani, Hartigan's Method, 2010).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch

from idlora.tuners.idlora.assignment import assign_at_least

TRANSFER_ROUNDS = 3
TRANSFER_ROWS = 128  # largest number of rows in one round
TRANSFER_GAIN = 5e-4  # least gain of a round, as a share of the objective
LOOK_AHEAD = {"cuda": 4}  # iterations between two checks of their results, by device type: a check waits for the device
BLOCK_ENTRIES = 2**20  # entries per block of distances: a block fits into a CPU's cache


class Clusters(NamedTuple):
    """A clustering of the rows of W (n, in).

    labels: cluster of every row, int64 (n,), on W's device. centroids: means of the clusters, float32 (k, in), on W's
    device. objective: Σ ‖w_n − c_{a(n)}‖².
    """

    labels: torch.Tensor
    centroids: torch.Tensor
    objective: float


class _State(NamedTuple):
    """A clustering during the search: centroids are relative to the mean of all rows, sizes (k,) are on the CPU."""

    labels: torch.Tensor
    centroids: torch.Tensor
    sizes: np.ndarray
    bounded: bool = False  # whether the nearest centroids ever left a cluster with fewer than r rows

    def gain(self) -> float:
        """Compute Σ_i n_i ‖c_i‖², the objective of a single cluster minus this one's."""
        # In float64: close solutions differ by little relative to the norms of the rows.
        return (self.sizes * np.square(self.centroids.cpu().double().numpy()).sum(axis=1)).sum()


def cluster_rows(
    matrix: torch.Tensor,
    k: int,
    r: int,
    *,
    seed: int = 0,
    n_init: int = 1,
    max_iter: int = 100,
    initial: torch.Tensor | None = None,
) -> Clusters:
    """Cluster the rows of a matrix.

    If the bound was active, a second descent from the same start assigns by distance instead of squared distance until
    it converges, then by squared distance; the better result is used. The reference library assigns by distance too:
    forced rows weigh less, which often gives another local optimum. Up to `TRANSFER_ROUNDS` rounds of row transfers and
    descents follow, as long as a round lowers the objective by a share of `TRANSFER_GAIN`.

    Args:
        matrix: W, float32 (n, in), finite; squares of its entries must neither overflow nor vanish.
        k: number of clusters.
        r: least number of rows in each, k·r ≤ n.
        seed: seed of k-means++, which draws from numpy's generator on the CPU: the same on every device.
        n_init: starts of greedy k-means++ (2 + ⌊log k⌋ candidates a centroid, as in scikit-learn); the best is used.
        max_iter: largest number of assignments of a descent. It ends when an assignment equals the previous one.
        initial: initial centroids (k, in) instead of k-means++.
    """
    with torch.no_grad(), full_float32(matrix.device):
        search = _Search(matrix, k, r, max_iter=max_iter)
        generator = np.random.default_rng(seed)
        if initial is None:
            starts = (search.starting_points(generator) for _ in range(n_init))
        else:
            starts = [initial.to(matrix) - search.origin]
        best = max(map(search.run, starts), key=_State.gain)
        return Clusters(best.labels, best.centroids + search.origin, float(search.norms.sum() - best.gain()))


def nearest_rows(matrix: torch.Tensor, clusters: Clusters, r: int) -> torch.Tensor:
    """Return the r rows nearest to the mean of each cluster, nearest first, int64 (k, r) on the CPU.

    Ties go to the first row. Equal rows have equal distances: differences in float32, squared and summed in float64.
    """
    size = max(1, BLOCK_ENTRIES // matrix.shape[1])
    blocks = zip(matrix.split(size), clusters.labels.split(size), strict=True)
    with torch.no_grad():
        distances = [
            torch.linalg.vector_norm(block - clusters.centroids[labels], dim=1, dtype=torch.float64)
            for block, labels in blocks
        ]
    order = torch.cat(distances).cpu().argsort(stable=True)
    owners = clusters.labels.cpu()[order]
    return torch.stack([order[owners == cluster][:r] for cluster in range(len(clusters.centroids))])


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Switch TF32, bf16 passes and autocast off for float32 products. The switches are process-wide."""
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    new = all(hasattr(backend, "fp32_precision") for backend in backends)  # torch 2.9 forbids mixing both interfaces
    before = [backend.fp32_precision for backend in backends] if new else torch.get_float32_matmul_precision()
    autocast = torch.amp.is_autocast_available(device.type)
    try:
        if new:
            for backend in backends:
                backend.fp32_precision = "ieee"
        else:
            torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False) if autocast else nullcontext():
            yield
    finally:
        if new:
            for backend, precision in zip(backends, before, strict=True):
                backend.fp32_precision = precision
        else:
            torch.set_float32_matmul_precision(before)


class _Search:
    """The search on one W (n, in). `origin` (in,) is the mean of its rows, `norms` (n,) are ‖w − origin‖², float64."""

    def __init__(self, matrix: torch.Tensor, k: int, r: int, *, max_iter: int):
        self.matrix, self.k, self.r, self.max_iter = matrix, k, r, max_iter
        self.clusters = torch.arange(k, device=matrix.device)[:, None]
        self.origin = (matrix.new_full((1, len(matrix)), 1 / len(matrix)) @ matrix)[0]
        blocks = matrix.split(max(1, BLOCK_ENTRIES // matrix.shape[1]))
        distances = [torch.linalg.vector_norm(block - self.origin, dim=1) for block in blocks]
        self.norms = np.square(torch.cat(distances).cpu().double().numpy())

    def run(self, start: torch.Tensor) -> _State:
        """Return the best state that descents and transfers find from initial centroids (k, in)."""
        best = self.descend(start)
        if best.bounded:
            by_distance = self.descend(start, squared=False)
            best = max(best, self.descend(by_distance.centroids), key=_State.gain)
        for _ in range(TRANSFER_ROUNDS):
            moved = self.transfer(best)
            if moved is None:
                break
            best = max(best, self.descend(moved), key=_State.gain)
        return best

    def costs(self, centroids: torch.Tensor) -> torch.Tensor:
        """Compute ‖w − c‖² − ‖w − origin‖², (n, k)."""
        offsets = (centroids * torch.add(centroids, self.origin, alpha=2)).sum(dim=1)
        return torch.addmm(offsets, self.matrix, centroids.T, alpha=-2)

    def members(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the matrix (k, n) that is 1 where a row belongs to a cluster, else 0."""
        return (labels == self.clusters).to(self.matrix.dtype)

    def means(self, members: torch.Tensor) -> torch.Tensor:
        """Compute the centroids of the clusters with these members (k, n), relative to the origin."""
        return members @ self.matrix / members.sum(dim=1, keepdim=True) - self.origin

    def descend(self, centroids: torch.Tensor, *, squared: bool = True) -> _State:
        """Alternate assignments and means until the labels no longer change."""
        left, moved, prices, bounded = self.max_iter, True, None, False
        labels = torch.full((len(self.matrix),), -1, device=centroids.device)
        while left and moved:
            ahead = 1 if bounded else min(left, LOOK_AHEAD.get(labels.device.type, 1))
            for step, smallest, moved in self.iterate(centroids, labels, ahead):
                left, (centroids, costs, nearest) = left - 1, step
                if forced := smallest < self.r:
                    bounded = True
                    table = costs.cpu().double().numpy()
                    if not squared:
                        table = np.sqrt(np.maximum(table + self.norms[:, None], 0))
                    assigned, prices = assign_at_least(table, self.r, prices)
                    nearest = torch.from_numpy(assigned).to(labels.device)
                    moved = not torch.equal(nearest, labels)
                labels = nearest
                if forced or not moved:
                    break  # later steps started from other labels, or repeat this one
            if moved:
                centroids = self.means(self.members(labels))
        return _State(labels, centroids, np.bincount(labels.cpu(), minlength=self.k), bounded)

    def iterate(self, centroids: torch.Tensor, labels: torch.Tensor, count: int) -> list[tuple]:
        """Run iterations that ignore the bound and go on after convergence; the device is waited for once, at the end.

        Returns a tuple for each: its centroids, the costs and the labels that follow from them; the least number of
        rows in a cluster; whether the labels differ from those before.
        """
        steps, members = [], []
        for _ in range(count):
            centroids = self.means(members[-1]) if members else centroids
            costs = self.costs(centroids)
            nearest = costs.argmin(dim=1)
            steps.append((centroids, costs, nearest))
            members.append(self.members(nearest))
        every = torch.stack([labels, *(nearest for *_, nearest in steps)])
        moved = (every[1:] != every[:-1]).any(dim=1)
        smallest = torch.stack(members).sum(dim=2).amin(dim=1)
        facts = torch.stack([smallest, moved], dim=1).tolist()
        return [(step, smallest, bool(moved)) for step, (smallest, moved) in zip(steps, facts, strict=True)]

    def transfer(self, state: _State) -> torch.Tensor | None:
        """Return centroids after transfers of the `TRANSFER_ROWS` rows that gain most; None if they gain too little."""
        enough = TRANSFER_GAIN * (self.norms.sum() - state.gain())
        distances = np.maximum(self.costs(state.centroids).cpu().double().numpy() + self.norms[:, None], 0)
        labels = state.labels.cpu().numpy().copy()
        gains = transfer_gains(distances, labels, sizes=state.sizes, minimum=self.r).max(axis=1)
        rows = np.argsort(-gains, kind="stable")[:TRANSFER_ROWS]
        rows = rows[gains[rows] > 0]
        if gains[rows].sum() < enough:
            return None
        block = self.matrix[torch.from_numpy(rows).to(self.matrix.device)] - self.origin
        products = (block @ block.T).cpu().double().numpy()
        squares = np.diag(products)
        between = np.maximum(squares[:, None] + squares - 2 * products, 0)
        labels[rows], gain = transfer_rows(distances[rows], between, labels[rows], sizes=state.sizes, minimum=self.r)
        if not gain >= enough > 0:
            return None
        return self.means(self.members(torch.from_numpy(labels).to(self.matrix.device)))

    def starting_points(self, generator: np.random.Generator) -> torch.Tensor:
        """Choose k rows by greedy k-means++ (Arthur & Vassilvitskii, 2007): (k, in), relative to the origin."""

        def candidates(picks: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
            points = self.matrix[torch.from_numpy(picks).to(self.matrix.device)] - self.origin
            return points, np.maximum(self.norms[:, None] + self.costs(points).cpu().numpy(), 0)

        points, nearest = candidates(np.array([generator.integers(len(self.matrix))]))
        chosen = [points[0]]
        for _ in range(self.k - 1):
            draws = generator.random(2 + int(math.log(self.k)))
            shares = nearest[:, 0].cumsum()
            picks = np.searchsorted(shares, draws * shares[-1]).clip(max=len(shares) - 1)
            points, distances = candidates(picks)
            nearer = np.minimum(nearest, distances)
            best = nearer.sum(axis=0).argmin()
            nearest = nearer[:, [best]]
            chosen.append(points[best])
        return torch.stack(chosen)


def transfer_gains(distances: np.ndarray, labels: np.ndarray, *, sizes: np.ndarray, minimum: int) -> np.ndarray:
    """Compute the decrease of the objective if one row moves to each cluster, float64 (m, k).

    It is −∞ for the row's own cluster and for moves below the bound. distances: ‖x − c‖², (m, k). labels: (m,).
    sizes: of the whole clusters, (k,).
    """
    rows = np.arange(len(labels))
    own = sizes[labels]
    leaving = np.where(own > max(minimum, 1), distances[rows, labels] * own / np.maximum(own - 1, 1), -np.inf)
    gains = leaving[:, None] - distances * (sizes / (sizes + 1))
    gains[rows, labels] = -np.inf
    return gains


def transfer_rows(
    distances: np.ndarray, between: np.ndarray, labels: np.ndarray, *, sizes: np.ndarray, minimum: int
) -> tuple[np.ndarray, float]:
    """Move the row that gains most until none gains; return the new labels and the decrease of the objective.

    Args:
        distances: ‖x − c‖² of m rows and k centroids, float64 (m, k).
        between: ‖x − y‖² among the rows, float64 (m, m), for updating `distances`.
        labels: int64 (m,).
        sizes: of the whole clusters, (k,); rows other than these m do not move.
        minimum: r.
    """
    distances, labels, sizes, total = distances.copy(), labels.copy(), sizes.astype(np.float64), 0.0
    enough = 1e-9 * distances.max(initial=0.0)
    for _ in range(4 * len(labels)):
        gains = transfer_gains(distances, labels, sizes=sizes, minimum=minimum)
        row, target = divmod(int(gains.argmax()), len(sizes))
        if not gains[row, target] > enough:
            break
        total += gains[row, target]
        for cluster, sign in ((int(labels[row]), -1), (target, 1)):
            size = sizes[cluster]
            # ‖y − (n c ± x)/(n ± 1)‖² from ‖y − c‖², ‖y − x‖² and ‖x − c‖².
            share = sign / (size + sign)
            column = distances[:, cluster]
            distances[:, cluster] = (1 - share) * (column - share * column[row]) + share * between[row]
            sizes[cluster] += sign
        labels[row] = target
    return labels, total
