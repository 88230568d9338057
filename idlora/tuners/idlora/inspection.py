"""Statistics of an adapter's pivots, and of the update that the router and B make of them.

    M   = Σ_i ᾱ_i A_i                      (r, in)      ᾱ a fixed mixture of the clusters
    ΔW  = (α/r) (I_s ⊗ B) M                (out, in)    the update for that mixture: rank(ΔW) ≤ rank(M) ≤ r

I_s ⊗ B, (out, r), applies B to each of the s chunks. B is shared, so the rank is at most r for any ᾱ.
"""

from dataclasses import dataclass, replace

import torch

from idlora.tuners.common import RoutingStatistics
from idlora.tuners.idlora.clustering import METHODS
from idlora.tuners.idlora.config import IdLoraConfig
from idlora.tuners.idlora.frozen_weight import readable_weight
from idlora.tuners.idlora.layer import IdLoraLinear


@dataclass(frozen=True, kw_only=True)
class PivotStatistics:
    """Statistics of one adapted module.

    Attributes:
        rows, columns: out and in of W.
        k, r: number of clusters and rank of the adapter.
        cluster_sizes: rows in each PMRC cluster of W, also if the adapter's pivots were selected by another method.
        norm_ratio: mean norm of the pivot rows over the mean norm of the others; None if there are no others.
        overlaps: by selection method, the share of the adapter's pivots that it selects too; k·r/rows by chance.
        mixture_rank: `effective_rank` of M for the even mixture.
        update_rank, update_effective_rank: rank and `effective_rank` of ΔW, with ᾱ the mean of α over the tokens.
        router_entropy: mean entropy of α over the tokens divided by log k: 1 for an even mixture, 0 for one cluster.
            None if α is not a distribution.

    The last three are None without tokens.
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
    """Compute exp(H(p)), p the singular values over their sum, H in nats (Roy & Vetterli, 2007); 0 for a zero matrix.

    It lies between 1 and the rank, and equals the rank if all nonzero singular values are equal.
    """
    values = torch.linalg.svdvals(matrix.double())
    total = values.sum()
    return float(torch.special.entr(values / total).sum().exp()) if total > 0 else 0.0


def pivot_statistics(
    layer: IdLoraLinear, config: IdLoraConfig, adapter_name: str, *, routing: RoutingStatistics | None = None
) -> PivotStatistics:
    """Compute the statistics of one layer's adapter; those of the update need `routing`."""
    pivots = layer.pivots(adapter_name).cpu()
    k, r = pivots.shape
    selector = replace(config.pivot_selector(), num_clusters=k, r=r)
    with readable_weight(layer.get_base_layer()) as weight:
        if weight is None:
            raise ValueError("the base's weights cannot be read here: load them in full, in a format that PEFT decodes")
        norms = weight.double().norm(dim=1).cpu()
        selected = {method: replace(selector, method=method).select(weight) for method in METHODS}
    is_pivot = torch.zeros(len(norms), dtype=torch.bool)
    is_pivot[pivots.flatten().long()] = True
    A = layer.frozen_rows(adapter_name).double().unflatten(0, (k, r))
    return PivotStatistics(
        rows=layer.out_features,
        columns=layer.in_features,
        k=k,
        r=r,
        cluster_sizes=selected["pmrc"].sizes,
        norm_ratio=None if is_pivot.all() else float(norms[is_pivot].mean() / norms[~is_pivot].mean()),
        overlaps={
            method: float(is_pivot[other.pivots.flatten().long()].double().mean()) for method, other in selected.items()
        },
        mixture_rank=effective_rank(A.mean(dim=0)),
        **({} if routing is None else _update_statistics(layer, adapter_name, A, routing=routing)),
    )


def _update_statistics(
    layer: IdLoraLinear, adapter_name: str, A: torch.Tensor, *, routing: RoutingStatistics
) -> dict[str, int | float | None]:
    mixed = torch.einsum("k,kri->ri", (routing.alpha / routing.tokens).to(A), A)
    B = layer.idlora_B[adapter_name].double()
    # (I ⊗ B) M has the singular values of the (r, r) matrix R_1 R_2ᵀ, where I ⊗ B = Q_1 R_1 and Mᵀ = Q_2 R_2.
    left = torch.block_diag(*[torch.linalg.qr(B, mode="r").R] * (layer.out_features // len(B)))
    update = layer.scaling[adapter_name] * left @ torch.linalg.qr(mixed.T, mode="r").R.T
    return {
        "update_rank": int(torch.linalg.matrix_rank(update)),
        "update_effective_rank": effective_rank(update),
        "router_entropy": routing.normalized_entropy if layer.alpha_sums_to_one(adapter_name) else None,
    }
