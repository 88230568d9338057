"""A linear layer with ID-LoRA adapters (Eq. 3 and 4 of arXiv 2602.20727, and Rank Boosting).

    A_i = W[S_i]  (r, in), frozen       S_i the r pivot rows of cluster i, i = 1 … k
    x_i = A_i h   (r,)                  x_i = (x_i^1, …, x_i^s), s contiguous chunks of r/s
    α   (k,)                            the routing weights, one for each cluster, for every token anew, from T:
          softmax(T h)                      T (k, in), the dense router, the default
          α_i = T · x_i                     T (r,), the inner product (quadratic in h: see IdLoraConfig)
          α_i = 1/k                         no T, the uniform mixture
    u   = W h + b + c Σ_i α_i [B x_i^1, …, B x_i^s]          B (out/s, r/s), c = lora_alpha/r, a constant

Eq. 4 writes the inner product, and Eq. 3 has s = 1. The defaults are the dense router, whose k·in parameters the
paper's Table 6 counts, and Rank Boosting with s = 2. `IdLoraLinear.alpha` computes α, `IdLoraLinear.update` the update
with it. On a GPU, where `IdLoraLinear.can_use_kernels` holds, `IdLoraLinear.forward_by_kernels` replaces both: it calls
`kernels/fused.py`, which gets T h from `kernels/routing.py`, and α and u from `kernels/mixing.py`.

Two facts make it cheap. A_i are rows of W, so x_i = (W h)[S_i] is gathered from what the base layer computes anyway
(its bias taken off), and no copy of A_i exists, in memory or on disk; the gradient of x_i goes back through the base
layer's own. And B is shared while α_i is a number per token, so Σ_i α_i B x_i = B z with z = Σ_i α_i x_i: B is
applied once. The first fact is lost to the controls whose A_i are matrices of their own, made from P_i = W[S_i]:

    gaussian      a_ij = |p_ij| g / |g|     g (in,) drawn anew for each row
    orthonormal   A_i  = m_i U Vᵀ           P_i = U Σ Vᵀ, m_i the mean of |p_ij| over the rows j of P_i
    equal_norm    a_ij = m p_ij / |p_ij|    m the mean of |p_ij| over all k·r pivots
"""

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners._buffer_dict import BufferDict
from torch import nn

from idlora.tuners.common import RoutedLayer, full_precision, softmax_route
from idlora.tuners.idlora import kernels
from idlora.tuners.idlora.config import IdLoraConfig
from idlora.tuners.idlora.frozen_weight import readable_weight

UNSET = -1  # stands in a pivot's place until it is selected or loaded; never a row


class UnsetPivotsError(RuntimeError):
    """An ID-LoRA adapter was used before its pivots were selected or loaded."""

    def __init__(self, what: str):
        super().__init__(
            f"{what} has no pivots: they were neither selected nor loaded. Selection is skipped on the meta device and "
            "for a config with init_weights=False (every saved adapter's). Load the adapter's weights, or make a new "
            "adapter on real weights from a config with init_weights=True"
        )


class IdLoraLinear(RoutedLayer):
    """A frozen linear layer with ID-LoRA adapters.

    Per adapter: `idlora_pivots` (k, r) int32, saved with it; `idlora_B` (out/s, r/s), zero at the start;
    `idlora_router`, (k, in) and zero at the start (an even mixture), or (r,) and drawn from ±1/√r (zero times a zero B
    would never train), or absent (the uniform mixture); `idlora_A` (k·r, in), frozen and saved, for bases
    other than W's rows alone. Dropout acts on z, with one mask, unless the config says `dropout_position="input"`.
    """

    adapter_layer_names = ("idlora_B", "idlora_router")
    other_param_names = (
        *RoutedLayer.other_param_names, "idlora_pivots", "idlora_A", "idlora_drops_input", "idlora_checked",
        "idlora_order", "idlora_fingerprint",
    )  # fmt: skip

    def create_containers(self) -> None:
        self.idlora_B = nn.ParameterDict()
        self.idlora_router = nn.ParameterDict()
        self.idlora_pivots = BufferDict(persistent=True)
        self.idlora_A = BufferDict(persistent=True)
        self.idlora_drops_input: dict[str, bool] = {}
        self.idlora_checked: dict[str, tuple[torch.Tensor, int]] = {}
        self.idlora_order: dict[str, torch.Tensor] = {}
        self.idlora_fingerprint: dict[str, dict[str, str]] = {}
        self.register_load_state_dict_pre_hook(warn_of_other_pivots)
        self.register_load_state_dict_post_hook(check_pivots)

    def init_adapter(
        self,
        adapter_name: str,
        config: IdLoraConfig,
        *,
        pivots: torch.Tensor | None = None,
        fingerprint: dict[str, str] | None = None,
    ) -> None:
        k, r, s = config.num_clusters, config.r, config.rank_boost
        self.idlora_pivots[adapter_name] = torch.full((k, r), UNSET, dtype=torch.int32) if pivots is None else pivots
        self.idlora_fingerprint[adapter_name] = fingerprint or {}
        self.idlora_drops_input[adapter_name] = config.dropout_position == "input"
        self.idlora_B[adapter_name] = nn.Parameter(torch.zeros(self.out_features // s, r // s))
        if config.bases != "rows":
            self.idlora_A[adapter_name] = self.make_own_rows(config, pivots)
        if config.router == "dense":
            self.idlora_router[adapter_name] = nn.Parameter(torch.zeros(k, self.in_features))
        elif config.router == "inner_product":
            bound = 1 / math.sqrt(r)
            self.idlora_router[adapter_name] = nn.Parameter(torch.empty(r).uniform_(-bound, bound))

    def update_layer(self, adapter_name: str, config: IdLoraConfig, **arguments: Any) -> None:
        super().update_layer(adapter_name, config, **arguments)
        check_pivots(self)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        places = {name: self.idlora_pivots[name].device for name in self.idlora_order}
        # No buffer, which `to_empty` would leave with whatever was in memory: lost on the meta device, and made again.
        self.idlora_order = {
            name: order.to(places[name]) for name, order in self.idlora_order.items() if places[name].type != "meta"
        }
        return self

    def make_own_rows(self, config: IdLoraConfig, pivots: torch.Tensor | None) -> torch.Tensor:
        """A (k·r, in) of the bases that are not W's rows, float32; NaN until it is loaded."""
        base_layer = self.get_base_layer()
        with readable_weight(base_layer) as weight:
            if pivots is None or weight is None:
                device, _ = self._get_base_layer_device_and_dtype(base_layer)
                return torch.full((config.num_clusters * config.r, self.in_features), torch.nan, device=device)
            rows = weight[pivots.flatten().long().to(weight.device)].float().cpu()
        return make_rows(config.bases, rows.unflatten(0, pivots.shape)).flatten(0, 1)

    def can_use_kernels(self, adapter_name: str, h: torch.Tensor) -> bool:
        bias, chunks = self.get_base_layer().bias, self.out_features // len(self.idlora_B[adapter_name])
        return (
            kernels.usable(h)
            and kernels.support(h, self.idlora_router.get(adapter_name), chunks)
            and not self.needs_rows(adapter_name)
            and (bias is None or not (bias.requires_grad or bias.is_meta))
        )

    def forward_by_kernels(self, adapter_name: str, h: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        router, dropout = self.idlora_router.get(adapter_name), self.dropout[adapter_name]
        if router is not None and router.dim() == 2:
            # Before the base layer: h is still in the cache, and afterwards the base's output is.
            route = kernels.fused.logits(h, router, self.out_features)
        else:
            route = router
        return kernels.fused.adapt(
            self.base_layer(h, *args, **kwargs),
            pivots=self.pivots(adapter_name),
            order=self.pivot_order(adapter_name),
            B=self.idlora_B[adapter_name],
            bias=self.get_base_layer().bias,
            route=route,
            scale=self.scaling[adapter_name],
            dropout=dropout.p if dropout.training and not self.idlora_drops_input[adapter_name] else 0.0,
        )

    def update(self, adapter_name: str, h: torch.Tensor, base_output: torch.Tensor) -> torch.Tensor:
        B = self.idlora_B[adapter_name]
        x = self.pivot_outputs(adapter_name, h, base_output)  # (..., k, r)
        alpha = self.alpha(adapter_name, h, x)  # (..., k)
        z = torch.einsum("...k,...kr->...r", alpha.to(x.dtype), x)
        if not self.idlora_drops_input[adapter_name]:
            z = self.dropout[adapter_name](z)
        chunks = (self.scaling[adapter_name] * z).unflatten(-1, (-1, B.shape[1]))  # (..., s, r/s)
        return F.linear(chunks, B).flatten(-2)

    def alpha(self, adapter_name: str, h: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        """The router's α (..., k), in float32 at least, from h (..., in), and x (..., k, r) if that is known."""
        router = self.idlora_router.get(adapter_name)
        if router is None:
            k = len(self.idlora_pivots[adapter_name])
            dtype = torch.promote_types(self.idlora_B[adapter_name].dtype, torch.float32)
            return torch.full((*h.shape[:-1], k), 1 / k, dtype=dtype, device=h.device)
        if router.dim() == 2:
            return softmax_route(router, h)
        if x is None:
            x = self.pivot_outputs(adapter_name, h, self.base_layer(h))
        dtype = torch.promote_types(router.dtype, torch.float32)
        with full_precision(x.device.type):
            return x.to(dtype) @ router.to(dtype)

    def alpha_sums_to_one(self, adapter_name: str) -> bool:
        router = self.idlora_router.get(adapter_name)
        # DeepSpeed ZeRO-3 leaves an empty vector behind and keeps its shape here.
        return router is None or len(getattr(router, "ds_shape", router.shape)) == 2

    def frozen_rows(self, adapter_name: str) -> torch.Tensor:
        """All A_i above each other, (k·r, in): rows of W, a copy made for this call, or the adapter's own."""
        if adapter_name in self.idlora_A:
            return self.idlora_A[adapter_name]
        pivots = self.pivots(adapter_name)
        with readable_weight(self.get_base_layer()) as weight:
            return weight[pivots.flatten().long()]

    def copy_frozen(self, adapter_name: str) -> None:
        """Store A_i as matrices beside W, as the paper does; x_i = A_i h is a product then."""
        self.idlora_A[adapter_name] = self.frozen_rows(adapter_name).clone()

    def needs_rows(self, adapter_name: str) -> bool:
        """Whether A itself is needed now: (W h)[S_i] has neither a dropped h nor rows that are not W's own."""
        drops_input = self.idlora_drops_input[adapter_name] and self.training and self.dropout[adapter_name].p > 0
        return drops_input or adapter_name in self.idlora_A

    def pivot_outputs(self, adapter_name: str, h: torch.Tensor, base_output: torch.Tensor) -> torch.Tensor:
        """x_i = A_i h for all clusters, (..., k, r), in B's type, from h (..., in) and W h + b (..., out)."""
        pivots = self.pivots(adapter_name)
        dtype, dropout = self.idlora_B[adapter_name].dtype, self.dropout[adapter_name]
        if self.needs_rows(adapter_name):
            A = self.frozen_rows(adapter_name).to(h.dtype)
            dropped = dropout(h) if self.idlora_drops_input[adapter_name] else h
            x = self._cast_input_dtype(F.linear(dropped, A), dtype)
        else:
            index = pivots.flatten().long()
            x = self._cast_input_dtype(base_output.gather(-1, index.expand(*base_output.shape[:-1], -1)), dtype)
            bias = self.get_base_layer().bias
            if bias is not None:
                x = x - bias[index].to(x.dtype)
        return x.unflatten(-1, pivots.shape)

    def pivots(self, adapter_name: str) -> torch.Tensor:
        """The pivots (k, r) of an adapter, int32, checked.

        They are checked once (on a GPU each check waits for it), and again when the buffer was replaced or written to,
        as loaders and moves to another device do. A compiled graph cannot check them; there the kernels turn the output
        of a token into NaN, and PyTorch's own gather fails.

        Raises UnsetPivotsError where they are not set yet, ValueError where they are no different rows of W.
        """
        pivots = self.idlora_pivots[adapter_name]
        if torch.compiler.is_compiling():
            return pivots
        version = 0 if pivots.is_inference() else pivots._version  # inference mode keeps no versions
        seen, seen_version = self.idlora_checked.get(adapter_name, (None, 0))
        if seen is not pivots or seen_version != version:
            if is_unset(pivots):
                raise UnsetPivotsError(f"the adapter {adapter_name!r}")
            if int(pivots.max()) >= self.out_features:
                raise ValueError(f"pivot {int(pivots.max())} is not among the {self.out_features} rows of this layer")
            if len(pivots.unique()) < pivots.numel():
                raise ValueError(
                    f"the adapter {adapter_name!r} has pivots that are the same row: load it from a sound file"
                )
            self.idlora_checked[adapter_name] = (pivots, version)
            with torch.inference_mode(False):  # what is made in inference could not be saved for a backward later on
                order, held = ascending(pivots.clone()), self.idlora_order.get(adapter_name)
                if held is not None and (held.shape, held.device) == (order.shape, order.device):
                    held.copy_(order)  # in its place, where a CUDA graph may read it
                else:
                    self.idlora_order[adapter_name] = order
        return pivots

    def pivot_order(self, adapter_name: str) -> torch.Tensor:
        """The order in which the kernels visit the pivots, and its inverse: (2, k·r) int32.

        Ascending by row, which is quick; any order is right, such as that of pivots that were since overwritten.
        """
        pivots, order = self.idlora_pivots[adapter_name], self.idlora_order.get(adapter_name)
        if order is None or order.device != pivots.device:
            return ascending(pivots)
        return order


def make_rows(bases: str, P: torch.Tensor) -> torch.Tensor:
    """A (k, r, in) of the bases that are not W's own rows, from the pivot rows P (k, r, in), float32 on the CPU.

    The equations stand at the top of this file. Gaussian rows follow torch's generator, the others P alone.
    """
    norms = P.norm(dim=-1, keepdim=True)
    if bases == "gaussian":
        return norms * F.normalize(torch.randn(P.shape), dim=-1)
    if bases == "equal_norm":
        return norms.mean() * F.normalize(P, dim=-1)
    U, _, Vh = torch.linalg.svd(P.double(), full_matrices=False)  # in half the digits rows that are alike lose angles
    return norms.mean(dim=1, keepdim=True) * (U @ Vh).float()


def is_unset(pivots: torch.Tensor) -> bool:
    """Whether some pivot is still unset; a tensor on the meta device holds none at all."""
    return pivots.is_meta or bool((pivots < 0).any())


def check_pivots(layer: IdLoraLinear, incompatible_keys: object = None) -> None:
    """Check new pivots now, since a compiled layer cannot; also the hook after `load_state_dict`."""
    for adapter_name, pivots in layer.idlora_pivots.items():
        if not is_unset(pivots):
            layer.pivots(adapter_name)


def warn_of_other_pivots(layer: IdLoraLinear, state_dict: dict[str, torch.Tensor], prefix: str, *_: object) -> None:
    """Warn where an adapter that has pivots is about to get others; the hook before `load_state_dict`.

    PEFT's `load_adapter` reads no config for a name that is there already, so the fingerprint stays unread.
    """
    for adapter_name, pivots in layer.idlora_pivots.items():
        loaded = state_dict.get(f"{prefix}idlora_pivots.{adapter_name}")
        if loaded is None or is_unset(loaded) or is_unset(pivots) or torch.equal(loaded.cpu(), pivots.cpu()):
            continue
        warnings.warn(
            f"the adapter {adapter_name!r} gets other pivots than it had, and nothing has shown that they were chosen "
            "from this base model: load it under a new name to have that checked",
            stacklevel=2,
        )


def ascending(pivots: torch.Tensor) -> torch.Tensor:
    """The permutation that sorts the pivots (k, r), and its inverse: (2, k·r) int32."""
    order = pivots.flatten().argsort()
    return torch.stack([order, order.argsort()]).to(torch.int32)
