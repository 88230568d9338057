"""Parts of a small benchmark: a model of two layers, adapters of its attention, scenarios of milliseconds."""

from typing import Any

from reproduction.benchmark.spec import Limits, Scenario, Variant
from reproduction.training.spec import MethodSpec, ModelSpec

SHAPE = {
    "model_type": "llama", "vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
MODEL = ModelSpec(name="small", label="Small", path_or_id="nowhere", init="random", shape=SHAPE)
REFERENCE = Variant(name="base", method=MethodSpec(name="base", label="Base", kind="none"))
PATIENT = Limits(utilisation=1000, load=1000, drift=1000, spread=1000)


def adapter(name: str = "low", peft_type: str = "LORA", **options: Any) -> Variant:
    """Return a variant on the attention's projections; other options are arguments of its PEFT config."""
    own = {key: options.pop(key) for key in ("merged", "adapter_dtype", "way") if key in options}
    arguments = {"r": 2, "target_modules": ["q_proj", "v_proj"]} | options
    return Variant(
        name=name,
        method=MethodSpec(name=name, label=name, kind="peft", peft_type=peft_type, arguments=arguments),
        **own,
    )


def scenario(phase: str = "prefill", **changes: Any) -> Scenario:
    values = {"name": phase, "phase": phase, "layers": 2, "batch": 2, "length": 8, "warmup": 1, "repeats": 3}
    return Scenario(**values | changes)
