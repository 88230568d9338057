"""One base model in memory, used by one cell after another: eight billion weights are read once, not once a cell.

A cell that trains an adapter leaves its base as it found it. Whether that is so is not taken on trust: a base that
comes back is kept only if it has the parameters, and every one of them the sum over its bits, that it was built with.
Left out: bases of full fine-tuning, which are other models afterwards, and sharing between processes.
"""

import logging
import weakref

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reproduction.training.build import build_base
from reproduction.training.spec import ModelSpec

logger = logging.getLogger(__name__)

Sums = dict[str, tuple[torch.Size, int]]


class SharedBase:
    """The base that this process keeps between two cells, if any."""

    def __init__(self) -> None:
        self._spec: ModelSpec | None = None
        self._kept: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self._lent: weakref.ref[PreTrainedModel] | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._sums: Sums = {}

    def take(self, spec: ModelSpec) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The base model and its tokenizer, as `build_base` makes them. Nothing is kept until it is given back.

        Raises:
            UnfitBase: see `build_base`.
        """
        kept, self._kept = self._kept, None
        if kept is None or spec != self._spec:
            kept = None  # gone before the next one is read: two may not fit
            kept = build_base(spec)
            self._spec, self._sums = spec, _bit_sums(kept[0])
        self._lent, self._tokenizer = weakref.ref(kept[0]), kept[1]
        return kept

    def give_back(self, model: PreTrainedModel | PeftModel) -> None:
        """Keep the base that was taken last, and comes back with adapters or without, unless something has changed it.

        Any other model is ignored.
        """
        if self._lent is None or base_of(model) is not self._lent():
            return
        base = model.unload() if isinstance(model, PeftModel) else model
        base.disable_input_require_grads()  # of gradient checkpointing
        base.requires_grad_(True).eval()
        if _bit_sums(base) != self._sums:
            logger.warning("A cell has changed its base %s, which is loaded anew for the next one.", self._spec.name)
            return
        self._kept = (base, self._tokenizer)


def base_of(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model itself, or what its adapters sit in."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


shared_base = SharedBase()
"""This process's own."""


def _bit_sums(model: nn.Module) -> Sums:
    """Shape and the sum over the bits, as integers, of each parameter and buffer."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: (tensor.shape, _bit_sum(tensor.detach())) for name, tensor in tensors.items()}


def _bit_sum(tensor: torch.Tensor) -> int:
    width = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return int(tensor.contiguous().view(width).sum(dtype=torch.int64)) if tensor.numel() else 0
