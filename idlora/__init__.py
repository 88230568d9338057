"""ID-LoRA as a PEFT method, and the reproduction of its paper.

`import idlora` registers the methods with PEFT, so that `get_peft_model`, `PeftModel.from_pretrained` and
transformers' `load_adapter` know them. Where torch or PEFT is not installed nothing is registered, and the parts
that need neither (`idlora.records`, `idlora.report`) still import: tables are rendered on any laptop.
"""

try:
    from idlora.tuners import HydraLoraConfig, IdLoraConfig, MoeLoraConfig, select_pivots
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] not in {"torch", "transformers", "peft"}:
        raise
    __all__ = []
else:
    __all__ = ["HydraLoraConfig", "IdLoraConfig", "MoeLoraConfig", "select_pivots"]

__version__ = "0.1.0"
