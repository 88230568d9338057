"""Settings of an ID-LoRA adapter."""

from dataclasses import dataclass, field
from typing import Literal

from peft import PeftType

from idlora.tuners.common import Paper, RoutedConfig, require_positive_integers
from idlora.tuners.idlora.clustering import KmeansBackend, PivotSelector, SelectionMethod


@dataclass
class IdLoraConfig(RoutedConfig):
    """Settings of ID-LoRA (arXiv 2602.20727): the fields of `peft.LoraConfig` and the method's own.

    `trainable_parameters` has the closed form of what an adapted module trains.

    The defaults follow the paper's tables where these differ from its equations. Eq. 4 writes α_i = T · A_i h with
    T ∈ R^r; the default is α = softmax(T h) with T (k, in), since Table 6 counts k·in parameters for a router. Eq. 3
    applies one B to all of A_i h; the default is Rank Boosting with two chunks. `router="inner_product", rank_boost=1`
    gives Eq. 3 and 4.

    With the inner product the update is quadratic in h, Δ(c h) = c² Δ(h), and c⁴ after two adapted layers in a row;
    with the other routers it is linear. Training stays stable with a bounded step (AdamW, or gradients clipped to a
    norm) or a normalised input (in a Llama q, k, v, gate and up have one; o and down do not). With plain SGD on inputs
    of standard deviation 2 it needed a learning rate 8 to 64 times lower than LoRA and the other routers.

    All `bases` except 'rows' are controls made from the pivots P_i = W[S_i] (r, in). The adapter and its checkpoint
    store them in full, num_clusters·r·in numbers a module, and A_i h is a separate matrix product:

        gaussian      each row of A_i is drawn from torch's generator and scaled to the norm of its pivot
        orthonormal   A_i = m_i U Vᵀ, where P_i = U Σ Vᵀ and m_i is the mean norm of P_i's rows: the orthonormal rows
                      nearest to P_i
        equal_norm    each pivot, scaled to the mean norm of the module's k·r pivots

    Raises ValueError for values out of range. Sizes that do not fit a module raise when the adapter is put on a model.

    Args:
        num_clusters (int, default 4): k ≥ 1, the number of clusters of rows, one A_i each; k·r must not exceed the rows
            of any adapted module. Lower it, or their r by rank_pattern, for narrow projections (k and v with grouped
            queries).
        rank_boost (int, default 2): s ≥ 1, the number of chunks of A_i h that share B; it must divide out and every r.
            Raise it for fewer parameters, as B has out·r/s² numbers; 1 is Eq. 3.
        router ('dense', 'inner_product' or 'uniform', default 'dense'): Formula of the routing weights α: softmax(T h)
            with T (k, in), T · A_i h with T (r,) (Eq. 4), or 1/k. Change it for fewer parameters.
        bases ('rows', 'gaussian', 'orthonormal' or 'equal_norm', default 'rows'): Origin of A_i: rows of W, or a
            control from the list above. Change it for an ablation only.
        selection ('pmrc', 'serial', 'random', 'pivoted_qr', 'smallest_norm' or 'largest_norm', default 'pmrc'): Method
            of `select_pivots`: clustering (§4.1) or a control. Change it for an ablation only.
        dropout_position ('bottleneck' or 'input', default 'bottleneck'): Whether dropout acts on z = Σ_i α_i A_i h or
            on h, as in LoRA. 'input' costs memory and time: a training step gathers the k·r rows of A from W and
            multiplies by them, because A_i d(h) is not among the entries of W h.
        seed (int, default 0): Seed of the selection only, in [0, 2**32); weights follow torch's generator.
        kmeans_starts (int, default 1): Number of k-means starts, at least 1; the best result is used. Raise it for
            tighter clusters; the time for selection grows in proportion.
        kmeans_iterations (int, default 100): Largest number of iterations of one k-means descent, at least 1. Lower it
            to save time on a very large model.
        kmeans_backend ('torch' or 'k_means_constrained', default 'torch'): Solver: this package's own, on the GPU if
            there is one, or the library that the paper names, a separate install and minutes slower on a large model.
            Change it to compare the two.
        init_weights (bool, default True): Whether to select pivots. It is False in a saved adapter, whose pivots come
            from its checkpoint; set it to True for a new adapter from such a config.
        base_fingerprint (dict of str, default None): Sketches of the base's rows, set by the model. Do not change it.
    """

    method_name = "ID-LoRA"
    paper = Paper(
        title="ID-LoRA: Efficient Low-Rank Adaptation Inspired by Matrix Interpolative Decomposition",
        authors=("Xidian Ma", "Rundong Kong", "Peng Zhang", "Ruoxiang Huang", "Yongyu Jiang"),
        year=2026,
        arxiv="2602.20727",
    )

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
    init_weights: bool = field(default=True, metadata={"card": False})
    base_fingerprint: dict[str, str] | None = field(default=None, repr=False, metadata={"card": False})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType("IDLORA")
        require_positive_integers(self, "num_clusters", "rank_boost", "kmeans_starts", "kmeans_iterations")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in [0, 2**32), not {self.seed!r}")
        ranks = {"r": self.r} | {f"rank_pattern[{key!r}]": r for key, r in self.rank_pattern.items()}
        for name, r in ranks.items():
            if r % self.rank_boost:
                raise ValueError(f"{name} must be a multiple of rank_boost: r={r}, rank_boost={self.rank_boost}")

    def trainable_parameters(self, in_features: int, out_features: int) -> int:
        """Return out·r/s², the size of B, and T's: k·in of the dense router, r of the inner product, 0 of no router.

        It is the same for all `bases`, since A_i is frozen.
        """
        k, r, s = self.num_clusters, self.r, self.rank_boost
        return out_features * r // s**2 + {"dense": k * in_features, "inner_product": r, "uniform": 0}[self.router]

    def pivot_selector(self) -> PivotSelector:
        """Return the pivot selector with these settings."""
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
        # PEFT injects an adapter before it loads the weights, and this must not select the pivots of a saved one again.
        given, self.init_weights = self.init_weights, self.init_weights and self.base_fingerprint is None
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self.init_weights = given
