"""Decoding a batch token by token, in one of two ways with the same interface.

`GrowingDecoder`  transformers' dynamic cache and forward passes as they come; any model, any device.
`FixedDecoder`    keys and values in buffers that stay where they are, so that a step is the same work at the same
                  addresses, whatever its number. On a GPU a CUDA graph replays it: a step of an adapted model is some
                  thousands of small kernels, which take longer to launch from Python than to run.

Heads that share keys are asked together (`_grouped`): under a mask transformers copies keys and values for each of
them, which at many rows takes longer than all else. Models with attention other than SDPA, layers of several kinds
(full and sliding), or caches that hold anything but keys and values are decoded in the first way. torch.compile would
take minutes for tens of adapted layers, anew for every size of a batch, and give little more than the graph does.
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

COMPACT_SHARE = 1 / 8  # of the rows may have ended before a growing cache drops them: each drop copies the cache
SLOTS = 256  # a fixed cache is read in multiples of so many places: what is not filled is read in vain
FEWEST_ROWS = 8  # below it a step takes what the weights take, whatever the batch
GRAPHS = 24  # kept at once, of some megabytes each: one batch takes a dozen sizes, and the next one the same

logger = logging.getLogger(__name__)


def decoder(model, *, rows: int, length: int) -> "GrowingDecoder | FixedDecoder":
    """The best way to decode on the model's device, for at most ``rows`` answers that end within ``length`` tokens.

    Where a model cannot be decoded with a CUDA graph (a layer that waits for the GPU, say), the log tells why, once.
    """
    if model.device.type == "cuda":
        try:
            return FixedDecoder(model, rows=rows, length=length)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # NotImplementedError and all of CUDA's are such
            _warn_once(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    return GrowingDecoder(model)


@functools.cache
def _warn_once(reason: str) -> None:
    logger.warning("Decoding goes step by step, without a CUDA graph, which is slower (%s).", reason)


class GrowingDecoder:
    """Decodes answers side by side, one token a step, over a dynamic cache.

    `look_every`: steps after which it pays to look which answers have ended; each look waits for the device.
    """

    look_every = 1

    def __init__(self, model):
        self.model = model

    @torch.no_grad()
    def begin(self, prompts: Sequence[Sequence[int]], *, samples: int) -> torch.Tensor:
        """Read the prompts, each once; logits (B, V) of what follows, B = len(prompts)·samples, samples together."""
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
        """Append tokens (B,) int64; logits (B, V) of what follows, to be used before the next step."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        logits = self._forward(tokens[:, None], self.position)
        self.position = self.position + 1
        return logits

    def saves(self, live: int) -> bool:
        """Whether steps become cheaper if only ``live`` of the rows are kept."""
        return len(self.mask) - live >= COMPACT_SHARE * len(self.mask)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows (int64, ascending) alone."""
        self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return _last_logits(self.model, ids, mask=self.mask, positions=positions, cache=self.cache)


class FixedDecoder:
    """`GrowingDecoder`'s interface over buffers for ``rows`` answers of ``length`` tokens, prompt included.

        keys, values   per layer (rows, heads, slots, head size): a prompt ends at the same slot in every row
        seen           (rows, slots) bool: what a row attends to, apart from a sliding window
        filled         (layers,) int64: the slot that the next token goes to; each layer's cache counts its own

    A step works on the first rows and slots. Rows that have ended are computed along until half of them have: the
    others then move to the front, and steps go on with half the rows. ``graphs`` is for tests without a GPU.

    Raises NotImplementedError for a model that is decoded in the other way, RuntimeError where a step cannot be
    captured as a CUDA graph.
    """

    look_every = 8

    @torch.no_grad()
    def __init__(self, model, *, rows: int, length: int, graphs: bool = True):
        self.model, self.rows, self.slots, self.graphs = model, rows, _round_up(length, SLOTS), graphs
        self.window = _sliding_window(model.config)
        device = model.device
        layers, logits = self._read(*left_padded([[0]], device))  # one token tells every shape

        def buffer(like: torch.Tensor) -> torch.Tensor:  # zeros: what is masked must be a number all the same
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
        """Rows of a step for so many answers: all, or half of them, and so on."""
        size = self.rows
        while size > FEWEST_ROWS and -(-size // 2) >= live:
            size = -(-size // 2)
        return size

    def _read(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> tuple[list[DynamicLayer], torch.Tensor]:
        """Keys and values of every layer, and logits (P, V) of what follows, for `left_padded` prompts."""
        cache = DynamicCache()  # without the config: of a sliding window it would keep the end alone
        logits = _last_logits(self.model, ids, mask=mask, positions=positions, cache=cache)
        if any(type(layer) is not DynamicLayer for layer in cache.layers):
            raise NotImplementedError(f"its cache has layers of the kind {type(cache.layers[0]).__name__}")
        return cache.layers, logits

    def _prepared(self, rows: int, slots: int) -> Callable[[], None]:
        """What does a step on the first rows and slots: a graph's replay, captured where it is not at hand."""
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

        def rehearse() -> None:  # leaves keys and values where the step itself will put them
            step()
            for counter, value in before:
                counter.copy_(value)

        side = _side_stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            rehearse()  # kernels are compiled, and what layers keep for later is made, outside of the graph
            with _no_waiting():
                rehearse()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=side):  # one pool: no graph leaves anything in it
            step()
        return graph.replay


class _Buffers(StaticLayer):
    """One layer's static cache over memory that others use too; `filled` () int64 is where the next token goes."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, *, filled: torch.Tensor):
        super().__init__(max_cache_len=keys.shape[2])
        self.keys, self.values, self.cumulative_length = keys, values, filled
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True


def _grouped(
    module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask, *, scaling=None, **others
) -> tuple[torch.Tensor, None]:
    """Attention of one new token a row: queries (B, H, 1, D) of the heads that share keys (B, K, S, D) stand beside
    each other as if they were H / K tokens, which they are to the keys. Mask (B, 1, 1, S), added. Returns (B, 1, H, D).

    Raises NotImplementedError for what a layer asks beside that.
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
    """The model's attention is `_grouped`, by a kernel that takes masks and has nothing to plan for a new size."""
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
    """The window of all layers, None where they attend to everything. Raises NotImplementedError for anything else."""
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
    """One for all captures: the matrix library keeps room to work in for every stream that it has seen."""
    return torch.cuda.Stream()


@contextlib.contextmanager
def _no_waiting() -> Iterator[None]:
    """Whatever would wait for the GPU raises RuntimeError: found before a capture, which it would leave half done."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(action="ignore"):  # that not every wait is found
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
