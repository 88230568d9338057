"""Decode a batch token by token, with one of two decoders that have the same interface.

`GrowingDecoder`  transformers' dynamic cache and plain forward passes; any model, any device.
`FixedDecoder`    static key/value buffers, so that every step does the same work at the same addresses. On a GPU the
                  step is a CUDA graph: a step of an adapted model has thousands of small kernels, which take longer
                  to launch from Python than to run.

Query heads that share keys are computed together (`_grouped`): with a mask, transformers copies keys and values for
each head, which dominates the time of large batches. `GrowingDecoder` serves models without SDPA attention, with mixed
layer types (full and sliding), or with caches of anything but keys and values. torch.compile would take minutes for
tens of adapted layers, again for every batch size, and is hardly faster than the graph.
"""

import contextlib
import functools
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer

from reproduction.evals.batching import left_padded, passes

COMPACT_SHARE = 1 / 8  # of the rows must have ended before a growing cache drops them: each drop copies the cache
SLOTS = 256  # a fixed cache is read in multiples of so many slots; unfilled ones are wasted reads
FEWEST_ROWS = 8  # in smaller batches the weights dominate the time of a step
GRAPHS = 24  # cached, some megabytes each: a batch uses about a dozen sizes, and the next batch the same ones

logger = logging.getLogger(__name__)


def decoder(model, *, rows: int, length: int) -> "GrowingDecoder | FixedDecoder":
    """Return the fastest decoder for up to ``rows`` answers of up to ``length`` tokens (prompt included).

    If a model cannot be captured as a CUDA graph, one warning gives the reason.
    """
    if model.device.type == "cuda":
        try:
            return FixedDecoder(model, rows=rows, length=length)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # includes NotImplementedError and CUDA's errors
            _warn_once(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    return GrowingDecoder(model)


@functools.cache
def _warn_once(reason: str) -> None:
    logger.warning("Decoding goes step by step, without a CUDA graph, which is slower (%s).", reason)


class GrowingDecoder:
    """Decode a batch of answers, one token per step, with a dynamic cache.

    `look_every`: steps between checks for ended answers; each check synchronises with the device.
    """

    look_every = 1

    def __init__(self, model):
        self.model = model

    @torch.no_grad()
    def begin(self, prompts: Sequence[Sequence[int]], *, samples: int) -> torch.Tensor:
        """Prefill each prompt once; return next-token logits (B, V), B = len(prompts)·samples, grouped by prompt."""
        ids, mask, positions = left_padded(prompts, self.model.device)
        self.cache, self.mask = DynamicCache(config=self.model.config), mask
        logits = self._forward(ids, positions)
        self.position = positions[:, -1:] + 1
        if samples > 1:
            self.cache.batch_repeat_interleave(samples)
            logits, self.mask, self.position = (
                x.repeat_interleave(samples, dim=0) for x in (logits, self.mask, self.position)
            )
        return logits

    @torch.no_grad()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Append tokens (B,) int64; return next-token logits (B, V), valid until the next step."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        logits = self._forward(tokens[:, None], self.position)
        self.position = self.position + 1
        return logits

    def saves(self, live: int) -> bool:
        """Whether dropping all but ``live`` rows makes steps cheaper."""
        return len(self.mask) - live >= COMPACT_SHARE * len(self.mask)

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all other rows; `rows` is int64, ascending."""
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return _last_logits(self.model, ids, mask=self.mask, positions=positions, cache=self.cache)


class FixedDecoder:
    """`GrowingDecoder`'s interface over buffers for ``rows`` answers of ``length`` tokens, prompt included.

        keys, values   per layer (rows, heads, slots, head size): prompts end at the same slot in every row
        seen           (rows, slots) bool: attention mask, without the sliding window
        filled         (layers,) int64: slot of the next token; each layer's cache has its own counter

    A step uses the first rows and slots. Ended rows are computed until half of the rows have ended; the others then
    move to the front, and steps use half the rows. ``graphs=False`` is for tests without a GPU.

    Raises NotImplementedError for a model that needs `GrowingDecoder`, RuntimeError if a step cannot be captured as a
    CUDA graph.
    """

    look_every = 8

    @torch.no_grad()
    def __init__(self, model, *, rows: int, length: int, graphs: bool = True):
        self.model, self.rows, self.slots, self.graphs = model, rows, _round_up(length, SLOTS), graphs
        self.window = _sliding_window(model.config)
        device = model.device
        layers, logits = self._read(*left_padded([[0]], device))  # one token is enough to learn all shapes

        def buffer(like: torch.Tensor) -> torch.Tensor:  # zeros: masked entries must be finite
            return like.new_zeros(rows, like.shape[1], self.slots, like.shape[3])

        self.keys = [buffer(layer.keys) for layer in layers]
        self.values = [buffer(layer.values) for layer in layers]
        self.logits = logits.new_zeros(rows, logits.shape[-1])
        self.seen = torch.zeros(rows, self.slots, dtype=torch.bool, device=device)
        self.places = torch.arange(self.slots, device=device)
        self.filled = torch.zeros(len(layers), dtype=torch.int64, device=device)
        self.tokens = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self.positions = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._steps: OrderedDict[tuple[int, int], Callable[[], None]] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle() if graphs else None
        self._prepared(self._size(rows), SLOTS)

    @torch.no_grad()
    def begin(self, prompts: Sequence[Sequence[int]], *, samples: int) -> torch.Tensor:
        self.length, self.live = max(map(len, prompts)), len(prompts) * samples
        for state in (self.seen, self.tokens, self.positions):
            state.zero_()
        self.filled.fill_(self.length)
        found, first = [], 0
        for some in passes(prompts, self.model.device):
            ids, mask, positions = left_padded(some, self.model.device)
            layers, logits = self._read(ids, mask, positions)
            found.append(logits)
            rows = slice(first, first := first + len(some) * samples)
            slots = slice(self.length - ids.shape[1], self.length)
            for layer, keys, values in zip(layers, self.keys, self.values, strict=True):
                keys[rows, :, slots] = layer.keys.repeat_interleave(samples, dim=0)
                values[rows, :, slots] = layer.values.repeat_interleave(samples, dim=0)
            self.seen[rows, slots] = mask.bool().repeat_interleave(samples, dim=0)
            self.positions[rows] = (positions[:, -1:] + 1).repeat_interleave(samples, dim=0)
        return torch.cat(found).repeat_interleave(samples, dim=0)

    @torch.no_grad()
    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        self.tokens[: self.live] = tokens[:, None]
        self._prepared(self._size(self.live), _round_up(self.length + 1, SLOTS))()
        self.length += 1
        return self.logits[: self.live]

    def saves(self, live: int) -> bool:
        return self._size(live) < self._size(self.live)

    @torch.no_grad()
    def keep(self, rows: torch.Tensor) -> None:
        self.live = len(rows)
        for buffer in (*self.keys, *self.values):
            buffer[: self.live, :, : self.length] = buffer[rows, :, : self.length]
        for state in (self.seen, self.positions):
            state[: self.live] = state[rows]

    def _size(self, live: int) -> int:
        """Return the rows of a step for `live` answers: all rows halved while the answers fit."""
        size = self.rows
        while size > FEWEST_ROWS and -(-size // 2) >= live:
            size = -(-size // 2)
        return size

    def _read(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> tuple[list[DynamicLayer], torch.Tensor]:
        """Prefill `left_padded` prompts; return each layer's keys and values, and next-token logits (P, V)."""
        cache = DynamicCache()  # no config: with one, a sliding-window cache would drop early tokens
        logits = _last_logits(self.model, ids, mask=mask, positions=positions, cache=cache)
        if any(type(layer) is not DynamicLayer for layer in cache.layers):
            raise NotImplementedError(f"its cache has layers of the kind {type(cache.layers[0]).__name__}")
        return cache.layers, logits

    def _prepared(self, rows: int, slots: int) -> Callable[[], None]:
        """Return the function for a step on the first rows and slots; a CUDA graph is captured on first use."""
        size = (rows, slots)
        if size not in self._steps:
            while len(self._steps) >= GRAPHS:
                self._steps.popitem(last=False)
            step = self._step_on(rows, slots)
            self._steps[size] = self._captured(step) if self.graphs else step
        self._steps.move_to_end(size)
        return self._steps[size]

    def _step_on(self, rows: int, slots: int) -> Callable[[], None]:
        caches = zip(self.keys, self.values, self.filled, strict=True)
        cache = Cache(layers=[_Buffers(k[:rows, :, :slots], v[:rows, :, :slots], filled=at) for k, v, at in caches])

        def step() -> None:
            newest = self.filled[:1]
            self.seen[:rows].index_fill_(1, newest, True)
            seen = self.seen[:rows, None, None, :slots]
            if self.window is not None:
                seen = seen & (self.places[:slots] > newest - self.window)
            mask = torch.zeros_like(seen, dtype=self.keys[0].dtype).masked_fill_(~seen, -torch.inf)  # for all layers
            positions = self.positions[:rows]
            with _grouped_attention(self.model.config):
                logits = _last_logits(self.model, self.tokens[:rows], mask=mask, positions=positions, cache=cache)
            self.logits[:rows].copy_(logits)
            positions.add_(1)

        return step

    def _captured(self, step: Callable[[], None]) -> Callable[[], None]:
        before = [(counter, counter.clone()) for counter in (self.filled, self.positions)]

        def rehearse() -> None:  # writes keys and values to the slots that the real step overwrites
            step()
            for counter, value in before:
                counter.copy_(value)

        side = _side_stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            rehearse()  # compile kernels and fill the layers' caches outside of the graph
            with _no_waiting():
                rehearse()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=side):  # graphs can share a pool: none keeps state in it
            step()
        return graph.replay


class _Buffers(StaticLayer):
    """One layer's static cache over shared memory; `filled` () int64 is the slot of the next token."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, *, filled: torch.Tensor):
        super().__init__(max_cache_len=keys.shape[2])
        self.keys, self.values, self.cumulative_length = keys, values, filled
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True


def _grouped(
    module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask, *, scaling=None, **others
) -> tuple[torch.Tensor, None]:
    """Attention of one new token per row, (B, 1, H, D): the H / K query heads (B, H, 1, D) that share a key head of
    (B, K, S, D) are passed as H / K tokens. The mask (B, 1, 1, S) is additive.

    Raises NotImplementedError for other features of a layer's attention, such as soft caps.
    """
    if unknown := [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]:
        raise NotImplementedError(f"its attention has {unknown[0]}")
    rows, heads, _, size = query.shape
    query = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    found = torch.nn.functional.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
    return found.reshape(rows, 1, heads, -1), None


AttentionInterface.register("idlora_grouped", _grouped)


@contextlib.contextmanager
def _grouped_attention(config) -> Iterator[None]:
    """Use `_grouped` attention, with kernels that accept masks and need no planning for a new size."""
    before = config._attn_implementation
    config._attn_implementation = "idlora_grouped"
    try:
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            yield
    finally:
        config._attn_implementation = before


def _last_logits(model, ids: torch.Tensor, *, mask: torch.Tensor, positions: torch.Tensor, cache) -> torch.Tensor:
    return model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]  # fmt: skip


def _sliding_window(config) -> int | None:
    """Return the sliding window of all layers, None for full attention; otherwise raise NotImplementedError."""
    attention = getattr(config, "_attn_implementation", None)
    if attention != "sdpa":
        raise NotImplementedError(f"its attention is {attention}, and masks in place are made for sdpa")
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [f"{'full' if window is None else 'sliding'}_attention"])
    if kinds == {"full_attention"}:
        return None
    if kinds == {"sliding_attention"}:
        return window
    raise NotImplementedError(f"its layers are of the kinds {', '.join(sorted(kinds))}")


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


@functools.cache
def _side_stream() -> torch.cuda.Stream:
    """Return the one stream of all captures: cuBLAS keeps a workspace for every stream that it has seen."""
    return torch.cuda.Stream()


@contextlib.contextmanager
def _no_waiting() -> Iterator[None]:
    """Raise RuntimeError for any synchronisation with the GPU, before it can break a capture halfway."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(action="ignore"):  # says that some synchronisations are missed
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
