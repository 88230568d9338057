"""k-means of the rows of matrices with at least r rows in every cluster, on any device, several matrices at a time.

    min  Σ_n ‖w_n − c_{a(n)}‖²    over centroids c (k, in) and assignments a    subject to  |{n : a(n) = i}| ≥ r

Lloyd's two steps in turn, each of which solves its half exactly, so the objective never rises: the assignment of least
cost that keeps the bound (Bradley, Bennett & Demiriz, Constrained K-Means Clustering, 2000), and the means. Row norms
drop out of the first: a cost is ‖c‖² − 2 w·c, one product of W with k columns. Where the nearest centroids leave
every cluster r rows they are the assignment, and that is seen for all matrices in one look; for the others the costs go
to the CPU and `assignment` solves them.

Everything read from a W is a product of that W alone, whatever else is in the batch: batched and single runs are the
same to the bit. Centroids are kept relative to the mean of all rows, so an offset common to them costs no digits.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch

from idlora.tuners.idlora.assignment import assign_at_least
from idlora.tuners.idlora.hartigan_wong import transfer_gains, transfer_rows

ROUNDS = 3  # of transfers
BLOCK = 128  # rows that take part in one
# Of the objective: what a round must gain, or it is not made (random weights of 2,000 rows offer less).
WORTHWHILE = 5e-4
NORM_BLOCK = 2**20  # entries whose distances to a mean are taken at a time: what stays in a cache


class Clusters(NamedTuple):
    """Of one matrix.

    labels: the cluster of every row, int64 (n,), on the CPU. centroids: their means, float32 (k, in), where W is.
    objective: Σ ‖w_n − c_{a(n)}‖². iterations: assignments made, of all descents together. bounded: whether the nearest
    centroids ever left a cluster with fewer than r rows.
    """

    labels: torch.Tensor
    centroids: torch.Tensor
    objective: float
    iterations: int
    bounded: bool


class _State(NamedTuple):
    """Where some matrices of a batch stand: their places in it, and tensors with a row for each.

    labels: (m, n). centroids: the means, from the origin, (m, k, in). sizes: (m, k), on the CPU.
    """

    places: list[int]
    labels: torch.Tensor
    centroids: torch.Tensor
    sizes: torch.Tensor
    iterations: list[int]
    bounded: list[bool]

    def gains(self) -> np.ndarray:
        """Σ_i n_i ‖c_i‖², by which the objective lies below that of a single cluster; float64 (m,)."""
        # Differences between close solutions would drown in the norms of the rows.
        centroids = self.centroids.cpu().double().numpy()
        return (self.sizes.numpy() * np.square(centroids).sum(axis=2)).sum(axis=1)

    def pick(self, rows: Sequence[int]) -> "_State":
        rows = list(rows)
        return _State(
            [self.places[row] for row in rows],
            self.labels[rows],
            self.centroids[rows],
            self.sizes[rows],
            [self.iterations[row] for row in rows],
            [self.bounded[row] for row in rows],
        )

    def improve(self, other: "_State") -> None:
        """Takes over, in place, what is better in another state of some of these matrices."""
        rows = {place: row for row, place in enumerate(self.places)}
        own, theirs = self.gains(), other.gains()
        for row, place in enumerate(other.places):
            mine = rows[place]
            self.iterations[mine] += other.iterations[row]
            self.bounded[mine] |= other.bounded[row]
            if theirs[row] > own[mine]:
                self.labels[mine], self.centroids[mine] = other.labels[row], other.centroids[row]
                self.sizes[mine] = other.sizes[row]


def cluster_rows(
    matrices: Sequence[torch.Tensor],
    k: int,
    r: int,
    *,
    seed: int = 0,
    n_init: int = 1,
    max_iter: int = 100,
    initial: torch.Tensor | None = None,
) -> list[Clusters]:
    """Cluster the rows of each of several matrices of one shape.

    Where the bound came into play, a second descent is made from the same centroids, which assigns by distance
    instead of squared distance until it comes to rest and by squared distance from there; the better of the two is
    kept. Assigning by distance is what the reference library does under the bound (without it the two problems have
    the same solution). It is no descent of this objective, but forced rows then weigh less, and it often ends in
    another local optimum. Where centroids to start from coincide, which says nothing about whose rows are whose, a
    descent from centroids moved apart competes too.

    Then rows are transferred one by one (`transfers`), the `BLOCK` that gain most, and a descent follows, for up to
    `ROUNDS` rounds or until one would lower the objective by less than `WORTHWHILE` of it. Small or low-dimensional
    matrices gain a percent; for a layer of an LLM this is one more look.

    Args:
        matrices: W's, each float32 (n, in), finite, of entries whose squares neither overflow nor vanish, all of one
            shape on one device.
        k: clusters. r: rows in each at least, k·r ≤ n.
        seed: of numpy's generator on the CPU, which k-means++ draws from: alike for every matrix and device.
        n_init: starts of greedy k-means++ (2 + ⌊log k⌋ candidates a centroid, as scikit-learn and the reference
            library have it); the best result is kept.
        max_iter: assignments of a descent at most. It ends when an assignment equals the one before.
        initial: centroids to start from in place of k-means++, (matrices, k, in).

    Returns:
        One `Clusters` for each matrix, in order.

    Leaves out weights on rows, upper bounds on sizes, a tolerance on centroids (labels stand still soon enough), and
    any search beyond local optima but more starts.
    """
    with torch.no_grad(), full_float32(matrices[0].device):
        batch = _Batch(matrices)
        generator = np.random.default_rng(seed)
        best: _State | None = None
        for _ in range(1 if initial is not None else n_init):
            start = batch.starting_points(k, generator) if initial is None else batch.centred(initial)
            found = _search(batch, start, r=r, max_iter=max_iter)
            if best is None:
                best = found
            else:
                best.improve(found)
        return [
            Clusters(
                labels=labels.cpu(),
                centroids=centroids + origin,
                objective=float(norms.sum() - gain),
                iterations=iterations,
                bounded=bounded,
            )
            for labels, centroids, origin, norms, gain, iterations, bounded in zip(
                best.labels,
                best.centroids,
                batch.origins,
                batch.norms,
                best.gains(),
                best.iterations,
                best.bounded,
                strict=True,
            )
        ]


def nearest_rows(matrix: torch.Tensor, clusters: Clusters, r: int) -> torch.Tensor:
    """The r rows nearest to the mean of each cluster, nearest first, of equals the first row: int64 (k, r), on the CPU.

    Distances are differences of float32, squared and summed in float64: equal rows get equal ones.
    """
    with torch.no_grad():
        distances = _distances(matrix, clusters.centroids, clusters.labels, dtype=torch.float64).cpu()
    order = distances.argsort(stable=True)
    owners = clusters.labels[order]
    return torch.stack([order[owners == cluster][:r] for cluster in range(len(clusters.centroids))])


def _distances(
    matrix: torch.Tensor,
    points: torch.Tensor,
    labels: torch.Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """‖w_n − p_{label of n}‖ of every row (n,), from the differences, summed in a type; without labels p_0."""
    blocks = matrix.split(max(1, NORM_BLOCK // matrix.shape[1]))
    if labels is None:
        differences = (block - points[0] for block in blocks)
    else:
        labels = labels.to(matrix.device).split(len(blocks[0]))
        differences = (block - points[label] for block, label in zip(blocks, labels, strict=True))
    return torch.cat([torch.linalg.vector_norm(difference, dim=1, dtype=dtype) for difference in differences])


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Products of float32 in float32: no TF32, no bf16 passes, no autocast. The switches are the whole process's."""
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    new = all(hasattr(backend, "fp32_precision") for backend in backends)  # torch 2.9; it forbids mixing with the old
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


class _Batch:
    """Matrices W (n, in), the means of their rows (matrices, in), and ‖w − mean‖² of every row (matrices, n)."""

    def __init__(self, matrices: Sequence[torch.Tensor]):
        self.matrices = matrices
        rows = matrices[0].shape[0]
        even = matrices[0].new_full((1, rows), 1 / rows)
        self.origins = torch.cat([even @ matrix for matrix in matrices])
        self.norms = np.stack(
            [
                np.square(_distances(matrix, origin[None]).cpu().double().numpy())
                for matrix, origin in zip(matrices, self.origins, strict=True)
            ]
        )

    def centred(self, centroids: torch.Tensor) -> torch.Tensor:
        return centroids.to(self.origins) - self.origins[:, None]

    def costs(self, indices: Sequence[int], centroids: torch.Tensor) -> torch.Tensor:
        """‖w − c‖² − ‖w − origin‖², (len(indices), n, k), for centroids (len(indices), k, in) given from the origin."""
        origins = self.origins[indices]
        offsets = (centroids * (centroids + 2 * origins[:, None])).sum(dim=2)
        return torch.stack(
            [
                torch.addmm(offset, self.matrices[index], points.T, alpha=-2)
                for index, offset, points in zip(indices, offsets, centroids, strict=True)
            ]
        )

    def means(self, indices: Sequence[int], labels: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Of each cluster, from the origin, (len(indices), k, in), from labels (len(indices), n)."""
        clusters = torch.arange(counts.shape[1], device=labels.device)
        members = (labels[:, None] == clusters[:, None]).to(self.origins.dtype)  # (len(indices), k, n)
        sums = torch.stack([one @ self.matrices[index] for index, one in zip(indices, members, strict=True)])
        return sums / counts.to(sums)[..., None] - self.origins[indices][:, None]

    def points(self, indices: Sequence[int], picks: np.ndarray) -> torch.Tensor:
        """Some rows of matrices, from the origin, (len(indices), p, in), by their indices (len(indices), p)."""
        picks = torch.from_numpy(picks).to(self.origins.device)
        picked = [self.matrices[index][pick] for index, pick in zip(indices, picks, strict=True)]
        return torch.stack(picked) - self.origins[indices][:, None]

    def parted(self, centroids: torch.Tensor) -> tuple[list[int], torch.Tensor]:
        """Matrices some of whose centroids (matrices, k, in) coincide; theirs, with rows far off in place of those."""
        k = centroids.shape[1]
        same = (centroids[:, :, None] == centroids[:, None]).all(dim=3).tril(-1).any(dim=2).cpu()
        places = same.any(dim=1).nonzero().flatten().tolist()
        centroids = centroids[places]
        for row, place in enumerate(places):
            for cluster in same[place].nonzero().flatten().tolist():
                costs = self.costs([place], centroids[row : row + 1, [i for i in range(k) if i != cluster]])
                nearest = costs[0].min(dim=1).values.cpu().numpy() + self.norms[place]
                farthest = np.full((1, 1), nearest.argmax())
                centroids[row, cluster] = self.points([place], farthest)[0, 0]
        return places, centroids

    def starting_points(self, k: int, generator: np.random.Generator) -> torch.Tensor:
        """k rows of each by greedy k-means++ (Arthur & Vassilvitskii, 2007), from the origin, (matrices, k, in)."""
        everything = range(len(self.matrices))
        rows = self.norms.shape[1]

        def distances(candidates: torch.Tensor) -> np.ndarray:
            costs = self.costs(everything, candidates).cpu().numpy()
            return np.maximum(self.norms[:, :, None] + costs, 0)

        chosen = [self.points(everything, np.full((len(self.matrices), 1), generator.integers(rows)))]
        nearest = distances(chosen[0])
        for _ in range(k - 1):
            draws = generator.random(2 + int(math.log(k)))
            candidates = self.points(everything, _draw(nearest[:, :, 0], draws))
            nearer = np.minimum(nearest, distances(candidates))
            best = nearer.sum(axis=1).argmin(axis=1)
            nearest = np.take_along_axis(nearer, best[:, None, None], axis=2)
            chosen.append(torch.stack([candidates[index, pick] for index, pick in enumerate(best)])[:, None])
        return torch.cat(chosen, dim=1)


def _search(batch: _Batch, start: torch.Tensor, *, r: int, max_iter: int) -> _State:
    """From one set of starting points: the descents, the best of them, and the transfers."""
    everything = list(range(len(start)))
    found = _descend(batch, everything, start, r=r, max_iter=max_iter)
    bounded = [place for place in everything if found.bounded[place]]
    if bounded:
        by_distance = _descend(batch, bounded, start[bounded], r=r, max_iter=max_iter, squared=False)
        found.improve(_descend(batch, bounded, by_distance.centroids, r=r, max_iter=max_iter))
    places, parted = batch.parted(start)
    if places:
        found.improve(_descend(batch, places, parted, r=r, max_iter=max_iter))
    active = everything
    for _ in range(ROUNDS):
        moved = _transfer(batch, found.pick(active), r)
        if not moved.places:
            break
        found.improve(_descend(batch, moved.places, moved.centroids, r=r, max_iter=max_iter))
        active = moved.places
    return found


def _draw(weights: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Indices with probabilities in proportion to weights (m, n), (m, len(draws)), from uniform draws."""
    shares = weights.cumsum(axis=1)
    picks = [np.searchsorted(share, draws * share[-1]) for share in shares]
    return np.stack(picks).clip(max=weights.shape[1] - 1)


def _transfer(batch: _Batch, state: _State, r: int) -> _State:
    """Where `transfer_rows` takes those matrices that it takes anywhere, by the `BLOCK` rows that have most to gain."""
    kept, k = [], state.sizes.shape[1]
    objectives = batch.norms[state.places].sum(axis=1) - state.gains()
    costs = batch.costs(state.places, state.centroids).cpu().double().numpy()
    for row, place in enumerate(state.places):
        distances = np.maximum(costs[row] + batch.norms[place][:, None], 0)
        labels, sizes = state.labels[row].cpu().numpy(), state.sizes[row].numpy()
        gains = transfer_gains(distances, labels, sizes=sizes, minimum=r).max(axis=1)
        rows = np.argsort(-gains, kind="stable")[:BLOCK]
        rows = rows[gains[rows] > 0]
        if gains[rows].sum() < WORTHWHILE * objectives[row]:
            continue
        index = torch.from_numpy(rows).to(batch.origins.device)
        block = batch.matrices[place][index] - batch.origins[place]
        products = (block @ block.T).cpu().double().numpy()
        squares = np.diag(products)
        between = np.maximum(squares[:, None] + squares - 2 * products, 0)
        new, gain = transfer_rows(distances[rows], between, labels[rows], sizes=sizes, minimum=r)
        if gain >= WORTHWHILE * objectives[row] > 0:
            labels[rows] = new
            state.labels[row] = torch.from_numpy(labels).to(state.labels.device)
            state.sizes[row] = torch.from_numpy(np.bincount(labels, minlength=k))
            kept.append(row)
    moved = state.pick(kept)
    if kept:
        moved.centroids[:] = batch.means(moved.places, moved.labels, moved.sizes)
    return moved


def _descend(
    batch: _Batch, indices: Sequence[int], centroids: torch.Tensor, *, r: int, max_iter: int, squared: bool = True
) -> _State:
    """Assignments and means in turn until labels stand still; matrices that are done drop out of the work."""
    k, device = centroids.shape[1], centroids.device
    centroids = centroids.clone()
    labels = torch.full((len(indices), batch.norms.shape[1]), -1, device=device)
    counts = torch.zeros(len(indices), k, dtype=torch.int64)
    prices: list[np.ndarray | None] = [None] * len(indices)
    bounded, iterations = [False] * len(indices), [0] * len(indices)
    clusters = torch.arange(k, device=device)
    active = list(range(len(indices)))
    for _ in range(max_iter):
        costs = batch.costs([indices[place] for place in active], centroids[active])
        nearest = costs.argmin(dim=2)
        sizes = (nearest[..., None] == clusters).sum(dim=1)
        moved = (nearest != labels[active]).any(dim=1, keepdim=True)
        seen = torch.cat([sizes, moved], dim=1).cpu()  # the one wait for the device
        counts[active], moved = seen[:, :k], seen[:, k] > 0
        for row, place in enumerate(active):
            iterations[place] += 1
            if counts[place].min() >= r:
                continue
            bounded[place] = True
            table = costs[row].cpu().double().numpy()
            if not squared:
                table = np.sqrt(np.maximum(table + batch.norms[indices[place]][:, None], 0))
            found, prices[place] = assign_at_least(table, r, prices[place])
            counts[place] = torch.from_numpy(np.bincount(found, minlength=k))
            nearest[row] = torch.from_numpy(found).to(device)
            moved[row] = bool((nearest[row] != labels[place]).any())
        if not moved.any():
            break
        kept = [row for row, has_moved in enumerate(moved.tolist()) if has_moved]
        active = [active[row] for row in kept]
        labels[active] = nearest[kept]
        centroids[active] = batch.means([indices[place] for place in active], labels[active], counts[active])
    return _State(list(indices), labels, centroids, counts, iterations, bounded)
