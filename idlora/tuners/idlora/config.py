"""Settings of an ID-LoRA adapter."""

import copy
from dataclasses import dataclass, field
from typing import Literal

from peft import PeftType

from idlora.tuners.common import RoutedConfig, require_positive_integers
from idlora.tuners.idlora.clustering import KmeansBackend, PivotSelector, SelectionMethod


@dataclass
class IdLoraConfig(RoutedConfig):
    """ID-LoRA (arXiv 2602.20727). A drop-in for `peft.LoraConfig`, with the method's own settings after LoRA's.

    Per adapted module it trains out·r/s² + num_clusters·in parameters with the dense router, out·r/s² + r with the
    inner product, out·r/s² with the uniform mixture, where s is `rank_boost`.

    The defaults depart from the paper's equations where its tables do. Eq. 4 writes α_i = T · A_i h with T ∈ R^r; the
    default is α = softmax(T h) with T (k, in), for Table 6 counts k·in parameters of a router. Eq. 3 applies one B to
    all of A_i h; the default is Rank Boosting with two chunks. `router="inner_product", rank_boost=1` is Eq. 3 and 4.

    The inner product makes the update quadratic in h, Δ(c h) = c² Δ(h), and c⁴ after two adapted layers in a row, where
    the other routers are linear. What keeps it stable is a bounded step (AdamW, or gradients clipped to a norm) or a
    normalised input (q, k, v, gate and up in a Llama have one; o and down have none). With plain SGD on inputs with a
    standard deviation of 2 it needed a learning rate 8 to 64 times lower than LoRA's and the other routers'.

    The `bases` other than W's rows are controls, made from the pivots P_i = W[S_i] (r, in), stored in the adapter and
    its checkpoint in full, num_clusters·r·in numbers a module; A_i h costs its product:

        gaussian      each row of A_i is drawn from torch's generator and scaled to the norm of the pivot in its place
        orthonormal   A_i = m_i U Vᵀ, where P_i = U Σ Vᵀ and m_i is the mean norm of P_i's rows: of all orthonormal
                      rows those nearest to P_i
        equal_norm    each pivot scaled to the mean norm of the module's k·r pivots, its direction kept

    Raises ValueError for values out of range; sizes that do not fit a module are reported, with its name, when the
    adapter is put on a model.

    Args:
        num_clusters (int, default 4): k ≥ 1, the number of clusters of rows, one A_i each; k·r must not exceed the rows
            of any adapted module. Lower it for narrow projections (k and v with grouped queries).
        rank_boost (int, default 2): s ≥ 1, the number of chunks of A_i h that share B; it must divide r and out. Raise
            it for fewer parameters, as B has out·r/s² numbers; 1 is Eq. 3.
        router ('dense', 'inner_product' or 'uniform', default 'dense'): How the routing weights α are made:
            softmax(T h) with T (k, in), T · A_i h with T (r,) (Eq. 4), or 1/k. Change it for fewer parameters.
        bases ('rows', 'gaussian', 'orthonormal' or 'equal_norm', default 'rows'): What A_i are: rows of W, or the
            controls above. Change it for an ablation only.
        selection ('pmrc', 'serial', 'random', 'pivoted_qr', 'smallest_norm' or 'largest_norm', default 'pmrc'): How the
            pivots are selected, see `select_pivots`: by clusters (§4.1), or controls. Change it for an ablation only.
        dropout_position ('bottleneck' or 'input', default 'bottleneck'): Whether dropout acts on z = Σ_i α_i A_i h or
            on h, as in LoRA. 'input' costs memory and time: a training step gathers the k·r rows of A from W and
            multiplies by them, for W h no longer holds A_i d(h).
        seed (int, default 0): Seed of the selection alone, in [0, 2**32); weights follow torch's generator.
        kmeans_starts (int, default 1): Starts of k-means, at least 1; the best is kept. Raise it for tighter clusters;
            selection takes as many times as long.
        kmeans_iterations (int, default 100): Most iterations of one descent of k-means, at least 1. Lower it to save
            time on a very large model.
        kmeans_backend ('torch' or 'k_means_constrained', default 'torch'): Who clusters: this package's solver, on the
            GPU if there is one, or the library that the paper names, which is to be installed and minutes slower on a
            large model. Change it to compare the two.
        init_weights (bool, default True): Whether to select pivots. It is False in a saved adapter, whose pivots come
            from its checkpoint; set it to True for a new adapter from such a config.
        base_fingerprint (dict of str, default None): Sketches of the base's rows, set by the model; not to be changed.
    """

    num_clusters: int = 4
    rank_boost: int = 2
    router: Literal["dense", "inner_product", "uniform"] = "dense"
    bases: Literal["rows", "gaussian", "orthonormal", "equal_norm"] = "rows"
    selection: SelectionMethod = "pmrc"
    dropout_position: Literal["bottleneck", "input"] = "bottleneck"
    seed: int = 0
    kmeans_starts: int = 1
    kmeans_iterations: int = 100
    kmeans_backend: KmeansBackend = "torch"
    init_weights: bool = True
    base_fingerprint: dict[str, str] | None = field(default=None, repr=False)

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType("IDLORA")
        require_positive_integers(self, "num_clusters", "rank_boost", "kmeans_starts", "kmeans_iterations")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in [0, 2**32), not {self.seed!r}")
        if self.r % self.rank_boost:
            raise ValueError(f"r must be a multiple of rank_boost: r={self.r}, rank_boost={self.rank_boost}")

    def pivot_selector(self) -> PivotSelector:
        """What selects the pivots by these settings."""
        return PivotSelector(
            num_clusters=self.num_clusters,
            r=self.r,
            method=self.selection,
            seed=self.seed,
            n_init=self.kmeans_starts,
            max_iter=self.kmeans_iterations,
            backend=self.kmeans_backend,
        )

    def save_pretrained(self, save_directory: str, **kwargs) -> None:
        # Loading injects the adapter before it reads the weights: a saved adapter must not be clustered again.
        config = copy.copy(self)
        config.init_weights = self.init_weights and self.base_fingerprint is None
        super(IdLoraConfig, config).save_pretrained(save_directory, **kwargs)
