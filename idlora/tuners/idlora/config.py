"""Settings of an ID-LoRA adapter."""

import copy
from dataclasses import dataclass, field

from peft import PeftType

from idlora.tuners.common.config import RoutedConfig, require_choice, require_positive_integer
from idlora.tuners.idlora.clustering import BACKENDS, METHODS

ROUTERS = ("dense", "inner_product", "uniform")
BASES = ("rows", "gaussian", "orthonormal", "equal_norm")
DROPOUT_POSITIONS = ("bottleneck", "input")


@dataclass
class IdLoraConfig(RoutedConfig):
    """ID-LoRA (arXiv 2602.20727). A drop-in for `peft.LoraConfig`, with the method's own settings after LoRA's.

    Per adapted module it trains out·r/s² + num_clusters·in parameters with the dense router, out·r/s² + r with the
    inner product, out·r/s² with the uniform mixture, where s is `rank_boost`. The paper's tables need the dense router,
    its Eq. 4 writes the inner product; the uniform mixture, α_i = 1/num_clusters, is a control of ours.

    The inner product makes the update quadratic in h: α_i = T · A_i h multiplies x_i = A_i h, so Δ(c h) = c² Δ(h), and
    c⁴ after two adapted layers in a row. The other routers' α_i sum to one, and Δ(c h) grows as c does. Eq. 4 does not
    bound α_i, and nothing is added to it here; what keeps it stable is a bounded step (AdamW, or gradients clipped to a
    norm) or an input of bounded size (the normalisation before q, k, v, gate and up in a Llama; o and down have none).
    Measured: the highest learning rate, of powers of two up to 4, with which no loss of 20 seeds becomes infinite in
    40 steps (SGD unless said otherwise; linear layers 16 → 32 → 16, both adapted, r = 4, α/r = 2, four clusters; mean
    squared error of random goals; inputs with a standard deviation of σ):

                                       inner product   dense   uniform   LoRA
        σ = 1                               1/2          4        4        1
        σ = 2                               1/16         2        4       1/2
        σ = 2, LayerNorm in between          1           4        4        1
        σ = 2, gradients clipped to 1        4           4        4        4
        σ = 2, AdamW                         4           4        4        4

    The other `bases` are controls too, in which A_i are no rows of W but made from the pivots P_i = W[S_i] (r, in):

        gaussian      each row of A_i is drawn from torch's generator and scaled to the norm of the pivot in its place
        orthonormal   A_i = m_i U Vᵀ, where P_i = U Σ Vᵀ and m_i is the mean norm of P_i's rows: the polar factor,
                      of all orthonormal rows those nearest to P_i
        equal_norm    each pivot scaled to the mean norm of the module's k·r pivots, its direction kept

    Such rows are stored, frozen, in the adapter and in its checkpoint, in full: num_clusters·r·in numbers a module
    (making them again at load would save the disk, and tie every checkpoint to one generator and to rows that
    quantisation changes). A_i h costs its product.

    `dropout_position="input"` drops entries of h, as LoRA does. It costs the shortcut that makes the method cheap:
    the pivot rows of W h are then no longer A_i d(h), so a training step gathers the k·r rows of A from W and
    multiplies by them (memory and work as if A_i had been copied). Evaluation is not affected.

    Raises ValueError for values out of range; sizes that do not fit a module are reported, with its name, when the
    adapter is put on a model.
    """

    computed_with = (*RoutedConfig.computed_with, "num_clusters", "rank_boost", "router", "bases")

    num_clusters: int = field(default=4, metadata={"help": "k, the number of clusters of rows, one A_i each."})
    rank_boost: int = field(default=2, metadata={"help": "s, the number of chunks that share B; 1 is Eq. 3."})
    router: str = field(default="dense", metadata={"help": f"How α_i is found: one of {', '.join(ROUTERS)}."})
    bases: str = field(default="rows", metadata={"help": f"What A_i are made of: one of {', '.join(BASES)}."})
    selection: str = field(default="pmrc", metadata={"help": f"How the pivots are found: one of {', '.join(METHODS)}."})
    dropout_position: str = field(
        default="bottleneck", metadata={"help": f"What dropout acts on: one of {', '.join(DROPOUT_POSITIONS)}."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the selection alone; weights follow torch's seed."})
    kmeans_starts: int = field(default=1, metadata={"help": "Starts of k-means, of which the best is kept."})
    kmeans_iterations: int = field(default=100, metadata={"help": "Largest number of iterations of one start."})
    kmeans_backend: str = field(
        default="torch",
        metadata={
            "help": f"Who clusters: one of {', '.join(BACKENDS)}. torch is the project's own solver, on the GPU if "
            "there is one; k_means_constrained is the library that the paper names, minutes slower on a large model."
        },
    )
    init_weights: bool = field(
        default=True,
        metadata={"help": "Select pivots. False in a saved adapter, whose pivots come from its checkpoint."},
    )
    base_fingerprint: dict[str, str] | None = field(
        default=None,
        repr=False,
        metadata={
            "help": "Sketches of base rows that a saved adapter was made from, of some modules; set by the model."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType("IDLORA")
        for name in ("num_clusters", "rank_boost", "kmeans_starts", "kmeans_iterations"):
            require_positive_integer(self, name)
        require_choice(self, "router", ROUTERS)
        require_choice(self, "bases", BASES)
        require_choice(self, "selection", METHODS)
        require_choice(self, "kmeans_backend", BACKENDS)
        require_choice(self, "dropout_position", DROPOUT_POSITIONS)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in [0, 2**32), not {self.seed!r}")
        if self.r % self.rank_boost:
            raise ValueError(f"r must be a multiple of rank_boost: r={self.r}, rank_boost={self.rank_boost}")

    def save_pretrained(self, save_directory: str, **kwargs) -> None:
        # Loading injects the adapter before it reads the weights: a saved adapter must not be clustered again.
        config = copy.copy(self)
        config.init_weights = self.init_weights and self.base_fingerprint is None
        super(IdLoraConfig, config).save_pretrained(save_directory, **kwargs)
