"""One base model in memory, used by one cell after another: eight billion weights are read once, not once a cell."""

import weakref

from peft import PeftModel
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reproduction.training.build import build_base
from reproduction.training.spec import ModelSpec


class SharedBase:
    """The base that this process keeps between two cells, if any. What trains an adapter leaves it as it was."""

    def __init__(self) -> None:
        self._spec: ModelSpec | None = None
        self._cached: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self._lent: weakref.ref[PreTrainedModel] | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def take(self, spec: ModelSpec) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The base model and its tokenizer, as `build_base` makes them. Nothing is kept until it is given back.

        Raises:
            UnfitBase: see `build_base`.
        """
        found, self._cached = self._cached, None
        if found is None or spec != self._spec:
            found = None  # freed before the next one is read: two may not fit
            found = build_base(spec)
        self._spec, self._lent, self._tokenizer = spec, weakref.ref(found[0]), found[1]
        return found

    def give_back(self, model: PreTrainedModel | PeftModel) -> None:
        """Keep the base that was taken last, with adapters or without; ignore any other model."""
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        if self._lent is None or base is not self._lent():
            return
        if isinstance(model, PeftModel):
            base = model.unload()
        base.disable_input_require_grads()  # of gradient checkpointing
        self._cached = (base.requires_grad_(True).eval(), self._tokenizer)


shared_base = SharedBase()
