"""What the pivots of an adapter are like, and what the router and B make of them, in numbers.

    M   = Σ_i ᾱ_i A_i                      (r, in)      ᾱ a fixed mixture of the clusters
    ΔW  = (α/r) (I_s ⊗ B) M                (out, in)    the update for that mixture: rank(ΔW) ≤ rank(M) ≤ r

I_s ⊗ B, (out, r), is B applied to each of the s chunks. Whatever ᾱ is, B is shared, so the rank is at most r.
"""

from dataclasses import dataclass

import torch

from idlora.tuners.common import Mixture
from idlora.tuners.idlora.clustering import METHODS, select_pivots_many
from idlora.tuners.idlora.config import IdLoraConfig
from idlora.tuners.idlora.frozen_weight import readable_weight
from idlora.tuners.idlora.layer import IdLoraLinear


@dataclass(frozen=True, kw_only=True)
class PivotStatistics:
    """Of one adapted module.

    Attributes:
        rows, columns: out and in of W. k, r: of the adapter.
        cluster_sizes: rows in each cluster that PMRC makes of W, whichever way the adapter's pivots were selected.
        norm_ratio: mean norm of the pivot rows over the mean norm of the others; None where there are no others.
        overlaps: by selection, the share of the adapter's pivots that it picks too; by chance that is k·r/rows.
        mixture_rank: `effective_rank` of M for the even mixture.
        update_rank, update_effective_rank: rank and `effective_rank` of ΔW, with ᾱ the mean of α over the tokens.
        router_entropy: mean over the tokens of the entropy of α, divided by log k: 1 an even mixture, 0 one cluster.
            None where α is no distribution.

    The last three are None where no tokens were looked at.
    """

    rows: int
    columns: int
    k: int
    r: int
    cluster_sizes: tuple[int, ...]
    norm_ratio: float | None
    overlaps: dict[str, float]
    mixture_rank: float
    update_rank: int | None = None
    update_effective_rank: float | None = None
    router_entropy: float | None = None


def effective_rank(matrix: torch.Tensor) -> float:
    """exp(H(p)) with p the singular values divided by their sum, H in nats (Roy & Vetterli, 2007); 0 for a zero matrix.

    It lies between 1 and the rank, and equals the rank where all singular values do.
    """
    values = torch.linalg.svdvals(matrix.double())
    total = values.sum()
    return float(torch.special.entr(values / total).sum().exp()) if total > 0 else 0.0


def pivot_statistics(
    layer: IdLoraLinear, config: IdLoraConfig, adapter_name: str, *, mixture: Mixture | None = None
) -> PivotStatistics:
    """The statistics of one layer's adapter; those of the update only with the `mixture` that its router made."""
    return PivotStatistics(
        **_rows(layer, config, adapter_name),
        mixture_rank=effective_rank(_mixed(layer, adapter_name)),
        **({} if mixture is None else _update(layer, adapter_name, mixture)),
    )


def _rows(layer: IdLoraLinear, config: IdLoraConfig, adapter_name: str) -> dict:
    pivots = layer.pivots(adapter_name).cpu()
    k, r = pivots.shape
    kmeans = {
        "seed": config.seed,
        "n_init": config.kmeans_starts,
        "max_iter": config.kmeans_iterations,
        "backend": config.kmeans_backend,
    }
    with readable_weight(layer.get_base_layer()) as weight:
        if weight is None:
            raise ValueError("the base's weights cannot be read here: load them in full, in a format that PEFT decodes")
        norms = weight.double().norm(dim=1).cpu()
        selected = {
            method: select_pivots_many([(None, weight)], k, r, method=method, **kmeans)[None] for method in METHODS
        }
    is_pivot = torch.zeros(len(norms), dtype=torch.bool)
    is_pivot[pivots.flatten().long()] = True
    return {
        "rows": layer.out_features,
        "columns": layer.in_features,
        "k": k,
        "r": r,
        "cluster_sizes": selected["pmrc"].sizes,
        "norm_ratio": None if is_pivot.all() else float(norms[is_pivot].mean() / norms[~is_pivot].mean()),
        "overlaps": {
            method: float(is_pivot[found.pivots.flatten().long()].double().mean()) for method, found in selected.items()
        },
    }


def _mixed(layer: IdLoraLinear, adapter_name: str, alpha: torch.Tensor | None = None) -> torch.Tensor:
    """M = Σ α_i A_i, (r, in) in float64, for α (k,); None is the even mixture."""
    k, r = layer.idlora_pivots[adapter_name].shape
    A = layer.frozen_rows(adapter_name).double().unflatten(0, (k, r))
    return A.mean(dim=0) if alpha is None else torch.einsum("k,kri->ri", alpha.to(A), A)


def _update(layer: IdLoraLinear, adapter_name: str, mixture: Mixture) -> dict:
    alpha = mixture.alpha / mixture.tokens
    B = layer.idlora_B[adapter_name].double()
    s = layer.out_features // len(B)
    # (I ⊗ B) M has the singular values of R_1 R_2ᵀ, where I ⊗ B = Q_1 R_1 and Mᵀ = Q_2 R_2: r by r numbers.
    left = torch.block_diag(*[torch.linalg.qr(B, mode="r").R] * s)
    right = torch.linalg.qr(_mixed(layer, adapter_name, alpha).T, mode="r").R
    update = layer.scaling[adapter_name] * left @ right.T
    return {
        "update_rank": int(torch.linalg.matrix_rank(update)),
        "update_effective_rank": effective_rank(update),
        "router_entropy": mixture.evenness if layer.alpha_sums_to_one(adapter_name) else None,
    }
