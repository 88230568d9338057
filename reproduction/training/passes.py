"""Forward and backward of a micro-batch on a GPU, as two CUDA graphs and without padding.

    H      = decoder(tokens)             (R, W, hidden)      graph: one per shape, recorded at its first use
    L      = Σ −log softmax(head(h)) / n   over the h of H that predict a response's token; h (answers, hidden)
    ∂L/∂H  = backward of the line above                      both without a graph: the number of answers varies
    ∂L/∂θ += backward of the decoder                         graph

A pass of a small model is thousands of kernels of a few microseconds; launched one by one, they wait for Python. The R
rows of W tokens hold a micro-batch's packed examples (`reproduction.data.packing`), which do not attend to each other:
the loss and its gradient equal those of padded rows. The head computes only the logits that the loss needs.

Several processes sum their gradients once a step (`Passes.sum_gradients`), outside the graphs. The Trainer's own passes
handle DeepSpeed, liger-kernel, attention other than SDPA, windows shorter than a row, and models whose loss is not the
cross-entropy of their head (checked by `Passes.fits`).
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
from reproduction.training.checkpoints import first_line

_logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2}
"""Largest relative difference between a token's logits in padded and packed rows; for another loss it is about 1."""

Decode = Callable[[dict[str, torch.Tensor]], torch.Tensor]
"""Function from the inputs of packed rows to their hidden states."""


class Passes:
    """Packed passes of one training; an instance replaces the Trainer's training step.

    Args:
        model: the trained model, on its device.
        bf16: whether the passes run under bfloat16 autocast.
        graphs: whether to record CUDA graphs. It must be False with gradient checkpointing, whose redrawing of dropout
            a graph cannot capture.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, *, bf16: bool, graphs: bool):
        self.model, self.bf16, self.graphs = model, bf16, graphs
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        self.config, self.decoder, self.head = base.config, base.base_model, base.get_output_embeddings()
        self.device = next(model.parameters()).device
        self.recording_seconds = 0.0
        self._shapes: dict[tuple[int, ...], _Graphs] = {}
        self._recorder: _Recorder | None = None

    def __call__(self, inputs: dict[str, torch.Tensor], items: torch.Tensor | int) -> torch.Tensor:
        """Add the gradient of a micro-batch's part of the loss, and return that part, a float32 scalar.

        Args:
            inputs: input_ids, labels, position_ids of packed rows, (R, W) int64 on the model's device.
            items: number of labels of the whole step.
        """
        shape = tuple(inputs["input_ids"].shape)
        if self.graphs and shape not in self._shapes:
            self._record(inputs)
        graphs = self._shapes[shape] if self.graphs else None
        hidden = graphs.forward(inputs) if graphs else self.decode(inputs)
        leaf = hidden.detach().requires_grad_()
        loss = self.loss(leaf, inputs["labels"], items)
        loss.backward()
        (graphs or hidden).backward(leaf.grad)
        return loss.detach()

    def prepare(self, rows: int, width: int) -> None:
        """Record a shape before its first use. Record the largest first: the others share its memory."""
        if self.graphs:
            zeros = torch.zeros(rows, width, dtype=torch.int64, device=self.device)
            self._record({"input_ids": zeros, "position_ids": zeros})

    def broadcast(self) -> None:
        """Copy the first process's trained parameters and buffers to every process, as DDP does."""
        for tensor in (*self.trained(), *self.model.buffers()):
            torch.distributed.broadcast(tensor.data, src=0)

    def sum_gradients(self) -> None:
        """Sum the gradients over all processes, in one all-reduce."""
        trained = self.trained()
        for parameter in trained:
            if parameter.grad is None:  # unused in this step
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in trained]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(together)
        pieces = together.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [piece.view_as(each) for piece, each in zip(pieces, gradients, strict=True)])

    def close(self) -> str:
        """Free the graphs' memory and return the value for `Resources.passes`."""
        self._shapes.clear()
        self._recorder = None
        return "packed, CUDA graphs" if self.graphs else "packed"

    def trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def fits(self, width: int) -> bool:
        """Return whether packed passes give the model's own loss in rows of `width`, tested on two short examples."""
        window = getattr(self.config, "sliding_window", None) or width
        if self.config._attn_implementation != "sdpa" or self.head is None or window < width:
            return False
        short, long = ([token % self.config.vocab_size for token in ids] for ids in (range(7, 12), range(20, 29)))
        rows = [{"input_ids": ids, "labels": [IGNORED, IGNORED, *ids[2:]]} for ids in (short, long)]
        lacking = len(long) - len(short)
        padded = {
            "input_ids": [short + [0] * lacking, long],
            "labels": [rows[0]["labels"] + [IGNORED] * lacking, rows[1]["labels"]],
            "attention_mask": [[1] * len(short) + [0] * lacking, [1] * len(long)],
        }
        padded = {name: torch.tensor(values, device=self.device) for name, values in padded.items()}
        packed = {name: torch.tensor([values], device=self.device) for name, values in joined(rows).items()}
        training = self.model.training
        self.model.eval()
        with torch.no_grad(), self._autocast():
            expected = self.model(**padded, use_cache=False)
            logits = self.head(self.decode(packed))[0].float()
        self.model.train(training)
        expected_logits = expected.logits[padded["attention_mask"].bool()].float()
        items = (packed["labels"] != IGNORED).sum()
        loss = F.cross_entropy(logits[:-1], packed["labels"][0, 1:], reduction="sum") / items
        tolerance = TOLERANCE[torch.bfloat16 if self.bf16 else torch.float32]
        near = (logits - expected_logits).norm(dim=1) <= tolerance * expected_logits.norm(dim=1)
        return bool(near.all() and (loss - expected.loss).abs() <= tolerance / 4 * expected.loss.abs())

    def decode(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute the hidden states of packed rows, (R, W, hidden)."""
        with self._autocast():
            return self.decoder(
                input_ids=inputs["input_ids"],
                position_ids=inputs["position_ids"],
                attention_mask=block_causal_mask(inputs["position_ids"]),
                use_cache=False,
            ).last_hidden_state

    def loss(self, hidden: torch.Tensor, labels: torch.Tensor, items: torch.Tensor | int) -> torch.Tensor:
        """Compute the sum of −log p over the labels that are not ignored, each shifted by one, divided by `items`."""
        following = F.pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
        answers = (following != IGNORED).nonzero().squeeze(1)
        with self._autocast():
            logits = self.head(hidden.flatten(0, 1)[answers])
        return F.cross_entropy(logits.float(), following[answers], reduction="sum") / items

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def _record(self, inputs: dict[str, torch.Tensor]) -> None:
        began = time.perf_counter()
        try:
            if self._recorder is None:
                self._recorder = _Recorder(self.trained(), self.decode)
            self._shapes[tuple(inputs["input_ids"].shape)] = _Graphs(self._recorder, self.decode, inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.graphs = False
            _logger.warning(
                "A pass could not be recorded as a CUDA graph; its kernels go one by one: %s", first_line(error)
            )
        finally:
            self.recording_seconds += time.perf_counter() - began


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, reports that a device ran out of memory."""
    while error is not None:
        # torch has an exception class for most GPU cases; the CPU's allocator and CUDA's libraries only have messages.
        words = ("DefaultCPUAllocator", "CUDA error: out of memory", "ALLOC_FAILED")
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(each in str(error) for each in words):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Recorder:
    """State shared by the graphs of a training: a stream, a memory pool, and the gradients.

    A graph adds to the gradient at the address of its recording. The Trainer drops gradients after each step, so the
    tensors are kept here, and restored as zeros before the next step.
    """

    def __init__(self, trained: list[torch.nn.Parameter], decode: Decode):
        self.trained = trained
        self.gradients = [torch.zeros_like(parameter) for parameter in trained]
        self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        self._warm_up(decode)

    def record(self, work: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
        graph = torch.cuda.CUDAGraph()
        # thread_local: NCCL's threads may query events during the capture.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            result = work()
        return graph, result

    def _warm_up(self, decode: Decode) -> None:
        """Initialise libraries and Triton, which a graph cannot capture, and leave the random generator unchanged."""
        zeros = torch.zeros(2, 16, dtype=torch.int64, device=self.trained[0].device)
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.random.fork_rng([torch.cuda.current_device()]), torch.cuda.stream(self.stream):
            hidden = decode({"input_ids": zeros, "position_ids": zeros})
            hidden.backward(torch.zeros_like(hidden))
        torch.cuda.current_stream().wait_stream(self.stream)
        for parameter in self.trained:
            parameter.grad = None


class _Graphs:
    """Recorded forward and backward of one shape."""

    def __init__(self, recorder: _Recorder, decode: Decode, inputs: dict[str, torch.Tensor]):
        self.recorder = recorder
        self.inputs = {name: inputs[name].clone() for name in ("input_ids", "position_ids")}
        restore_gradients(recorder.trained, recorder.gradients)
        self.forward_graph, hidden = recorder.record(lambda: decode(self.inputs))
        self.gradient = torch.zeros_like(hidden)
        self.backward_graph, _ = recorder.record(lambda: hidden.backward(self.gradient))
        self.hidden = hidden.detach()

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        restore_gradients(self.recorder.trained, self.recorder.gradients)
        for name, tensor in self.inputs.items():
            tensor.copy_(inputs[name])
        self.forward_graph.replay()
        return self.hidden

    def backward(self, gradient: torch.Tensor) -> None:
        self.gradient.copy_(gradient)
        self.backward_graph.replay()


def restore_gradients(parameters: list[torch.nn.Parameter], gradients: list[torch.Tensor]) -> None:
    """Move each parameter's gradient into its tensor of `gradients`, keeping its value; a dropped one becomes zero."""
    dropped = [gradient for parameter, gradient in zip(parameters, gradients, strict=True) if parameter.grad is None]
    if dropped:
        torch._foreach_zero_(dropped)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.grad is not gradient:
            if parameter.grad is not None:  # of a pass without a graph
                gradient.copy_(parameter.grad)
            parameter.grad = gradient


def block_causal_mask(position_ids: torch.Tensor) -> torch.Tensor:
    """Return the causal mask within each example: from (R, W) int64 to (R, 1, W, W) bool."""
    example = (position_ids == 0).cumsum(1)
    width = position_ids.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=position_ids.device).tril()
    return ((example[:, :, None] == example[:, None, :]) & causal)[:, None]


def count_tokens(position_ids: torch.Tensor) -> torch.Tensor:
    """Count the tokens of packed rows without padding: a scalar. Examples have two or more tokens, padding has one."""
    return (position_ids > 0).sum() + (position_ids == 1).sum()
