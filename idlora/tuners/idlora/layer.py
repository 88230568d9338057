"""A linear layer with ID-LoRA adapters (Eq. 3 and 4 of arXiv 2602.20727, and Rank Boosting).

    A_i = W[S_i]  (r, in), frozen       S_i the r pivot rows of cluster i, i = 1 … k
    x_i = A_i h   (r,)                  x_i = (x_i^1, …, x_i^s), s contiguous chunks of r/s
    α   (k,)                            the routing weights of a token, one for each cluster, from T:
          softmax(T h)                      T (k, in), the dense router, the default
          α_i = T · x_i                     T (r,), the inner product (quadratic in h: see IdLoraConfig)
          α_i = 1/k                         no T, the uniform mixture
    u   = W h + b + c Σ_i α_i [B x_i^1, …, B x_i^s]          B (out/s, r/s), c = lora_alpha/r, a constant

Eq. 4 writes the inner product, and Eq. 3 has s = 1. The defaults are the dense router, whose k·in parameters the
paper's Table 6 counts, and Rank Boosting with s = 2. `IdLoraLinear.alpha` computes α, `IdLoraLinear.update` the update
with it. On a GPU `IdLoraLinear.forward_by_kernels` replaces both if `IdLoraLinear.can_use_kernels` returns True: it
calls `kernels/fused.py`, which gets T h from `kernels/routing.py`, and α and u from `kernels/mixing.py`.

Two facts make the update cheap. A_i are rows of W, so x_i = (W h)[S_i] is gathered from the base layer's output (minus
its bias), and no copy of A_i exists, in memory or on disk; the gradient of x_i flows back through the base layer. B is
shared and α_i is a number per token, so Σ_i α_i B x_i = B z with z = Σ_i α_i x_i: B is applied once.

The first fact has two exceptions. A sum W h + b rounded to 16 bits has lost W h where b is large (the key biases of
Qwen2.5 exceed 100), so with a bias and a 16-bit output, x_i = W[S_i] h is a product of its own: k·r·in more
multiplications a token, and a copy of W[S_i] while it is computed. If W is quantised or partitioned, the base layer
runs once more with its bias hidden, and x_i is gathered from that. Whether b is large is not asked, since the CPU would
wait for the GPU. The output contains the base layer's own W h + b in any case. The other exception are the controls,
whose A_i are separate matrices made from P_i = W[S_i]:

    gaussian      a_ij = |p_ij| g / |g|     g (in,) drawn for each row
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

from idlora.tuners.common import RoutedLayer, full_precision, loaded, loaded_bias, softmax_route
from idlora.tuners.idlora import kernels
from idlora.tuners.idlora.config import IdLoraConfig
from idlora.tuners.idlora.frozen_weight import dense_weight, hidden_bias, is_partitioned, readable_weight

UNSET = -1  # value of a pivot until it is selected or loaded


class UnsetPivotsError(RuntimeError):
    """Raised when an ID-LoRA adapter is used before its pivots are selected or loaded."""

    def __init__(self, what: str):
        super().__init__(
            f"{what} has no pivots: they were neither selected nor loaded. Selection is skipped on the meta device and "
            "for a config with init_weights=False (every saved adapter's). Load the adapter's weights, or make a new "
            "adapter on real weights from a config with init_weights=True"
        )


class IdLoraLinear(RoutedLayer):
    """A frozen linear layer with ID-LoRA adapters.

    Each adapter has `idlora_pivots` (k, r) int32, saved with it, and `idlora_B` (out/s, r/s), initially zero. Its
    `idlora_router` is (k, in), initially zero (an even mixture), or (r,), initially uniform in ±1/√r (a zero router
    with a zero B never trains), or absent (the uniform mixture). `idlora_A` (k·r, in), frozen and saved, exists only
    for `bases` other than 'rows'. Dropout acts on z, with one mask, unless `dropout_position` is 'input'.
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
        # Not a buffer, since `to_empty` leaves buffers uninitialised. It is dropped on the meta device and made again.
        self.idlora_order = {
            name: order.to(places[name]) for name, order in self.idlora_order.items() if places[name].type != "meta"
        }
        return self

    def make_own_rows(self, config: IdLoraConfig, pivots: torch.Tensor | None) -> torch.Tensor:
        """Return A (k·r, in) for `bases` other than 'rows', float32; NaN until it is loaded."""
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
            # Before the base layer, while h is in the cache: `adapt` then finds the base's output there.
            route = kernels.fused.logits(h, router, self.out_features)
        else:
            route = router
        base_output, pivots = self.base_layer(h, *args, **kwargs), self.pivots(adapter_name)
        return kernels.fused.adapt(
            base_output,
            x=self.unbiased_outputs(pivots, h) if self.loses_digits(base_output) else None,
            pivots=pivots,
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
        """Compute α (..., k), in float32 or a wider type, from h (..., in) and, if known, x (..., k, r)."""
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
        # DeepSpeed ZeRO-3 replaces a parameter by an empty vector and stores its shape in `ds_shape`.
        return router is None or len(getattr(router, "ds_shape", router.shape)) == 2

    def frozen_rows(self, adapter_name: str) -> torch.Tensor:
        """Return all A_i stacked, (k·r, in): rows of W, copied in this call, or the adapter's own."""
        if adapter_name in self.idlora_A:
            return self.idlora_A[adapter_name]
        pivots = self.pivots(adapter_name)
        with readable_weight(self.get_base_layer()) as weight:
            return weight[pivots.flatten().long()]

    def copy_frozen(self, adapter_name: str) -> None:
        """Store A_i as matrices beside W, as the paper does, so that x_i = A_i h is a matrix product."""
        self.idlora_A[adapter_name] = self.frozen_rows(adapter_name).clone()

    def needs_rows(self, adapter_name: str) -> bool:
        """Return whether A itself is needed: (W h)[S_i] does not cover dropout on h or rows other than W's."""
        drops_input = self.idlora_drops_input[adapter_name] and self.training and self.dropout[adapter_name].p > 0
        return drops_input or adapter_name in self.idlora_A

    def pivot_outputs(self, adapter_name: str, h: torch.Tensor, base_output: torch.Tensor) -> torch.Tensor:
        """Compute x_i = A_i h for all clusters, (..., k, r), in B's type, from h (..., in) and W h + b (..., out)."""
        pivots = self.pivots(adapter_name)
        dtype, dropout = self.idlora_B[adapter_name].dtype, self.dropout[adapter_name]
        if self.needs_rows(adapter_name):
            A = self.frozen_rows(adapter_name).to(h.dtype)
            dropped = dropout(h) if self.idlora_drops_input[adapter_name] else h
            x = self._cast_input_dtype(F.linear(dropped, A), dtype)
        elif self.loses_digits(base_output):
            x = self._cast_input_dtype(self.unbiased_outputs(pivots, h), dtype)
        else:
            x = self._cast_input_dtype(gather(base_output, pivots), dtype)
            bias = loaded_bias(self.get_base_layer())
            if bias is not None:
                x = x - bias[pivots.flatten().long()].to(x.dtype)
        return x.unflatten(-1, pivots.shape)

    def loses_digits(self, base_output: torch.Tensor) -> bool:
        """Return whether W h cannot be recovered from W h + b: there is a bias, and the sum is rounded to 16 bits."""
        if self.get_base_layer().bias is None:
            return False
        # Quantised layers compute in 16 bits, and may return the sum in another type.
        return base_output.element_size() < 4 or self.quantization_backend is not None

    def unbiased_outputs(self, pivots: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """Compute the entries of W h at the pivots (k, r), without a trace of b: (..., k·r), in h's type."""
        base_layer = self.get_base_layer()
        if self.quantization_backend is not None or is_partitioned(base_layer):
            with hidden_bias(base_layer):
                return gather(self.base_layer(h), pivots)
        rows = pivots.flatten().long()
        if not base_layer.weight.is_meta:
            return RowsProduct.apply(h, dense_weight(base_layer), rows)
        with loaded(base_layer):  # offloaded: gone before the backward
            return F.linear(h, dense_weight(base_layer)[rows])

    def pivots(self, adapter_name: str) -> torch.Tensor:
        """Return the pivots (k, r) of an adapter, int32, after checking them.

        A check waits for the GPU, so it runs once, and again after the buffer is replaced or written to, as by loaders
        and moves to another device. A compiled graph cannot check them: where x_i is gathered, a pivot that is not a
        row of W makes the output NaN by the kernels, and PyTorch's gather fails; where x_i is a product, an unset pivot
        counts as the last row.

        Raises UnsetPivotsError if they are unset, ValueError if they are not different rows of W.
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
            with torch.inference_mode(False):  # autograd cannot save a tensor made in inference mode for backward
                order, current = ascending(pivots.clone()), self.idlora_order.get(adapter_name)
                if current is not None and (current.shape, current.device) == (order.shape, order.device):
                    current.copy_(order)  # in place, since a CUDA graph may read it
                else:
                    self.idlora_order[adapter_name] = order
        return pivots

    def pivot_order(self, adapter_name: str) -> torch.Tensor:
        """Return the order in which the kernels visit the pivots, and its inverse: (2, k·r) int32.

        Ascending order by row is fastest. Any order is correct, so one of overwritten pivots does no harm.
        """
        pivots, order = self.idlora_pivots[adapter_name], self.idlora_order.get(adapter_name)
        if order is None or order.device != pivots.device:
            return ascending(pivots)
        return order


class RowsProduct(torch.autograd.Function):
    """W[rows] h from h (..., in), a frozen W (out, in) and row indices; the backward takes the rows out of W anew."""

    @staticmethod
    def forward(ctx, h: torch.Tensor, weight: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, rows)
        ctx.dtype = h.dtype
        return F.linear(h, weight[rows])

    @staticmethod
    def backward(ctx, dx: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weight, rows = ctx.saved_tensors
        return (dx @ weight[rows].to(dx.dtype)).to(ctx.dtype), None, None


def make_rows(bases: str, P: torch.Tensor) -> torch.Tensor:
    """Return A (k, r, in) for `bases` other than 'rows', from the pivot rows P (k, r, in), float32 on the CPU.

    The equations are at the top of this file. Gaussian rows follow torch's generator, the others depend on P only.
    """
    norms = P.norm(dim=-1, keepdim=True)
    if bases == "gaussian":
        return norms * F.normalize(torch.randn(P.shape), dim=-1)
    if bases == "equal_norm":
        return norms.mean() * F.normalize(P, dim=-1)
    U, _, Vh = torch.linalg.svd(P.double(), full_matrices=False)  # float32 is too coarse for nearly parallel rows
    return norms.mean(dim=1, keepdim=True) * (U @ Vh).float()


def gather(outputs: torch.Tensor, pivots: torch.Tensor) -> torch.Tensor:
    """Return the entries at the pivots (k, r) of outputs (..., out): (..., k·r)."""
    return outputs.gather(-1, pivots.flatten().long().expand(*outputs.shape[:-1], -1))


def is_unset(pivots: torch.Tensor) -> bool:
    """Return whether some pivot is unset; on the meta device all are."""
    return pivots.is_meta or bool((pivots < 0).any())


def check_pivots(layer: IdLoraLinear, incompatible_keys: object = None) -> None:
    """Check new pivots, because a compiled layer cannot. Also runs as a hook after `load_state_dict`."""
    for adapter_name, pivots in layer.idlora_pivots.items():
        if not is_unset(pivots):
            layer.pivots(adapter_name)


def warn_of_other_pivots(layer: IdLoraLinear, state_dict: dict[str, torch.Tensor], prefix: str, *_: object) -> None:
    """Warn if an adapter that has pivots is about to get others; a hook before `load_state_dict`.

    PEFT's `load_adapter` does not read the config, and hence the fingerprint, for an adapter name that exists.
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
    """Return the permutation that sorts the pivots (k, r), and its inverse: (2, k·r) int32."""
    order = pivots.flatten().argsort()
    return torch.stack([order, order.argsort()]).to(torch.int32)
