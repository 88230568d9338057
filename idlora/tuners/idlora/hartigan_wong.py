"""Rows moved between clusters one at a time, centroids following at once: a search that starts where Lloyd's ends.

Moving row x from cluster i to j changes the objective by

    n_j/(n_j + 1) ‖x − c_j‖² − n_i/(n_i − 1) ‖x − c_i‖²                                  (Hartigan & Wong, 1979)

which can be negative though c_i is the nearest centroid, for x has pulled c_i towards itself. In many dimensions that
is true of most rows, and Lloyd's steps, blind to it, rest early: every optimum of this search is one of theirs, but
not the reverse (Telgarsky & Vattani, Hartigan's Method, 2010).
"""

import numpy as np


def transfer_gains(distances: np.ndarray, labels: np.ndarray, *, sizes: np.ndarray, minimum: int) -> np.ndarray:
    """What the objective falls by if one row moves to each cluster, float64 (m, k); −∞ to its own, or below the bound.

    distances: ‖x − c‖², (m, k). labels: (m,). sizes: of the whole clusters, (k,).
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
    """Move rows, the one that gains most first, until none gains; the new labels and what the objective fell by.

    Args:
        distances: ‖x − c‖² of m rows and k centroids, float64 (m, k). between: ‖x − y‖² among the rows, float64 (m, m);
            both suffice to keep the first up to date. labels: int64 (m,).
        sizes: of the whole clusters, (k,); other rows than these m stay where they are. minimum: r.

    Leaves out exchanges of two rows, which alone could help between clusters of r rows each.
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
