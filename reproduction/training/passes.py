"""Forward and backward of a micro-batch on a GPU, launched as two CUDA graphs and without padding.

    H      = decoder(tokens)             (R, W, hidden)      graph: one for each shape, recorded when it is first met
    L      = Σ −log softmax(head(h)) / n   over the h of H that predict a response's token; h (answers, hidden)
    ∂L/∂H  = backward of the line above                      both kernel by kernel: how many answers there are varies
    ∂L/∂θ += backward of the decoder                         graph

A pass of a small model is thousands of kernels of a few microseconds. Launched one by one from Python they wait for it,
most with a method that has many small ones; a graph launches them as a whole.

The R rows of W tokens hold a micro-batch's examples packed (`reproduction.data.packing`), each blind to the others: the
loss and its gradient are those of the padded rows, at about half of their tokens. The head computes no logits that
the loss does not read.

Several processes add up their gradients once a step (`Passes.add_up`), outside of the graphs.

Left out, and trained by the Trainer's own passes: DeepSpeed, liger-kernel, attention other than SDPA, windows shorter
than a row, and models whose loss is not cross-entropy of their head (`Passes.fits` tries).
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from torch.nn import functional as F
from transformers import PreTrainedModel

from reproduction.data.packing import joined
from reproduction.data.tokenization import IGNORED

_logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2}
"""Largest relative difference between a token's logits in padded rows, by the model, and in packed ones, by `Passes`.

Of another example a token would see, or of scaled logits, the difference is as large as the logits.
"""


Decode = Callable[[dict[str, torch.Tensor]], torch.Tensor]


class Passes:
    """The passes of one training; an instance is called in place of the Trainer's training step."""

    def __init__(self, model: PreTrainedModel | PeftModel, *, bf16: bool, graphs: bool):
        """Prepare the passes of a model; nothing is computed yet.

        Args:
            model: what is trained, on its device.
            bf16: whether the passes are under bfloat16 autocast.
            graphs: whether shapes are recorded as CUDA graphs; not under gradient checkpointing, which redraws dropout
                in a way that no graph can hold.
        """
        self.model, self.bf16, self.graphs = model, bf16, graphs
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        self.config, self.decoder, self.head = base.config, base.base_model, base.get_output_embeddings()
        self.device = next(model.parameters()).device
        self.recording_seconds = 0.0
        self._shapes: dict[tuple[int, ...], _Kernels | _Graphs] = {}
        self._recorder: _Recorder | None = None

    def __call__(self, inputs: dict[str, torch.Tensor], items: torch.Tensor | int) -> torch.Tensor:
        """Add the gradient of a micro-batch's part of the loss, and return that part, a float32 scalar.

        Args:
            inputs: input_ids, labels, position_ids of packed rows, (R, W) int64 on the model's device.
            items: labels of the whole step.
        """
        shape = tuple(inputs["input_ids"].shape)
        if shape not in self._shapes:
            self._shapes[shape] = self._pass(inputs)
        decoder = self._shapes[shape]
        hidden = decoder.forward(inputs).detach().requires_grad_()
        loss = self.loss(hidden, inputs["labels"], items)
        loss.backward()
        decoder.backward(hidden.grad)
        return loss.detach()

    def agree(self) -> None:
        """Give every process of the launch the first one's trained numbers and buffers, as DDP does."""
        for tensor in (*self.trained(), *self.model.buffers()):
            torch.distributed.broadcast(tensor.data, src=0)

    def add_up(self) -> None:
        """Make the gradient of every process of the launch the sum of all of theirs, in one exchange."""
        for parameter in self.trained():
            if parameter.grad is None:  # not used in this step
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.trained()]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(together)
        pieces = together.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [piece.view_as(each) for piece, each in zip(pieces, gradients, strict=True)])

    def close(self) -> tuple[str, float]:
        """Give back the memory of the graphs; what the passes were, and the seconds spent on recording them."""
        self._shapes.clear()
        self._recorder = None
        return "packed, CUDA graphs" if self.graphs else "packed", self.recording_seconds

    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters that require a gradient."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def prepare(self, rows: int, width: int) -> None:
        """Make ready for a shape before it is met: of several the largest first, whose memory the others then share."""
        if self.graphs:
            zeros = torch.zeros(rows, width, dtype=torch.int64, device=self.device)
            self._shapes[rows, width] = self._pass({"input_ids": zeros, "position_ids": zeros})

    def fits(self, width: int) -> bool:
        """Whether the model's own loss is what is computed here of rows of `width`: tried on two short examples."""
        window = getattr(self.config, "sliding_window", None) or width
        if self.config._attn_implementation != "sdpa" or self.head is None or window < width:
            return False
        ids = [[token % self.config.vocab_size for token in few] for few in (range(7, 12), range(20, 29))]
        rows = [{"input_ids": few, "labels": [IGNORED, IGNORED, *few[2:]]} for few in ids]
        short = [0] * (len(ids[1]) - len(ids[0]))
        padded = {
            "input_ids": [ids[0] + short, ids[1]],
            "labels": [rows[0]["labels"] + [IGNORED] * len(short), rows[1]["labels"]],
            "attention_mask": [[1] * len(ids[0]) + short, [1] * len(ids[1])],
        }
        padded = {name: torch.tensor(values, device=self.device) for name, values in padded.items()}
        packed = {name: torch.tensor([values], device=self.device) for name, values in joined(rows).items()}
        training = self.model.training
        self.model.eval()
        with torch.no_grad(), self._autocast():
            found = self.model(**padded, use_cache=False)
            ours = self.head(self.decode(packed))[0].float()
        self.model.train(training)
        theirs = found.logits[padded["attention_mask"].bool()].float()
        items = (packed["labels"] != IGNORED).sum()
        loss = F.cross_entropy(ours[:-1], packed["labels"][0, 1:], reduction="sum") / items
        most = TOLERANCE[torch.bfloat16 if self.bf16 else torch.float32]
        near = (ours - theirs).norm(dim=1) <= most * theirs.norm(dim=1)
        return bool(near.all() and (loss - found.loss).abs() <= most / 4 * found.loss.abs())

    def decode(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Hidden states of packed rows, (R, W, hidden)."""
        with self._autocast():
            return self.decoder(
                input_ids=inputs["input_ids"],
                position_ids=inputs["position_ids"],
                attention_mask=within_examples(inputs["position_ids"]),
                use_cache=False,
            ).last_hidden_state

    def loss(self, hidden: torch.Tensor, labels: torch.Tensor, items: torch.Tensor | int) -> torch.Tensor:
        """Sum of −log p over the labels that are not ignored, each of the position before it, over `items`."""
        following = F.pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
        answers = (following != IGNORED).nonzero().squeeze(1)
        with self._autocast():
            logits = self.head(hidden.flatten(0, 1)[answers])
        return F.cross_entropy(logits.float(), following[answers], reduction="sum") / items

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def _pass(self, inputs: dict[str, torch.Tensor]) -> "_Kernels | _Graphs":
        if not self.graphs:
            return _Kernels(self.decode)
        began = time.perf_counter()
        try:
            if self._recorder is None:
                self._recorder = _Recorder(self.trained(), self.decode)
            return _Graphs(self._recorder, self.decode, inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.graphs = False
            first = str(error).strip().partition("\n")[0]
            _logger.warning("A pass could not be recorded as a CUDA graph; its kernels go one by one: %s", first)
            return _Kernels(self.decode)
        finally:
            self.recording_seconds += time.perf_counter() - began


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it came of, says that a device's memory did not suffice."""
    cause: BaseException | None = error
    while cause is not None:
        # torch has a class for most of a GPU's cases; the CPU's allocator and CUDA's libraries have only their words.
        if isinstance(cause, MemoryError | torch.OutOfMemoryError) or any(
            words in str(cause) for words in ("DefaultCPUAllocator", "CUDA error: out of memory", "ALLOC_FAILED")
        ):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


class _Kernels:
    """A pass whose kernels are launched one by one."""

    def __init__(self, decode: Decode):
        self.decode = decode

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        self.hidden = self.decode(inputs)
        return self.hidden

    def backward(self, gradient: torch.Tensor) -> None:
        self.hidden.backward(gradient)
        del self.hidden


class _Recorder:
    """What the graphs of a training share: a stream, a pool of memory, and the places of the gradients.

    A graph adds to the gradient where it lay when it was recorded. The Trainer forgets gradients after each step, so
    they are kept here, and put back as zeros before the next.
    """

    def __init__(self, trained: list[torch.nn.Parameter], decode: Decode):
        self.trained = trained
        self.gradients = [torch.zeros_like(parameter) for parameter in self.trained]
        self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        self._warm_up(decode)

    def put_back(self) -> None:
        put_back(self.trained, self.gradients)

    def record(self, work: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
        graph = torch.cuda.CUDAGraph()
        # Threads of NCCL may ask the driver for events meanwhile.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            result = work()
        return graph, result

    def _warm_up(self, decode: Decode) -> None:
        """Libraries and Triton set themselves up at a first pass, which no graph can hold. It draws no dropout of the
        run's, so that a resumed run goes on as one that never stopped.
        """
        zeros = torch.zeros(2, 16, dtype=torch.int64, device=self.trained[0].device)
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.random.fork_rng([torch.cuda.current_device()]), torch.cuda.stream(self.stream):
            hidden = decode({"input_ids": zeros, "position_ids": zeros})
            hidden.backward(torch.zeros_like(hidden))
        torch.cuda.current_stream().wait_stream(self.stream)
        for parameter in self.trained:
            parameter.grad = None


class _Graphs:
    """A pass of one shape, recorded."""

    def __init__(self, recorder: _Recorder, decode: Decode, inputs: dict[str, torch.Tensor]):
        self.recorder = recorder
        self.inputs = {name: inputs[name].clone() for name in ("input_ids", "position_ids")}
        recorder.put_back()
        self.ahead, hidden = recorder.record(lambda: decode(self.inputs))
        self.gradient = torch.zeros_like(hidden)
        self.back, _ = recorder.record(lambda: hidden.backward(self.gradient))
        self.hidden = hidden.detach()

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        self.recorder.put_back()
        for name, place in self.inputs.items():
            place.copy_(inputs[name])
        self.ahead.replay()
        return self.hidden

    def backward(self, gradient: torch.Tensor) -> None:
        self.gradient.copy_(gradient)
        self.back.replay()


def put_back(parameters: list[torch.nn.Parameter], places: list[torch.Tensor]) -> None:
    """Have each parameter's gradient lie in its place, with the value that it has; one that is forgotten is zero."""
    forgotten = [place for parameter, place in zip(parameters, places, strict=True) if parameter.grad is None]
    if forgotten:
        torch._foreach_zero_(forgotten)
    for parameter, place in zip(parameters, places, strict=True):
        if parameter.grad is not place:
            if parameter.grad is not None:  # of a pass that was no graph
                place.copy_(parameter.grad)
            parameter.grad = place


def within_examples(position_ids: torch.Tensor) -> torch.Tensor:
    """Which positions each may attend to: its own example's, up to itself. (R, W) int64 to (R, 1, W, W) bool."""
    example = (position_ids == 0).cumsum(1)
    width = position_ids.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=position_ids.device).tril()
    return ((example[:, :, None] == example[:, None, :]) & causal)[:, None]


def count_tokens(position_ids: torch.Tensor) -> torch.Tensor:
    """Tokens of packed rows, padding apart: a scalar. Each example has two or more, padding is examples of one."""
    return (position_ids > 0).sum() + (position_ids == 1).sum()
