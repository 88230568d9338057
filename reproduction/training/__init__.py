"""Training with the HF Trainer: seeds, models, data, checkpoints, resource figures. Independent of the method.

Names are imported on first use, because importing the Trainer takes seconds.
"""

from importlib import import_module

_HOME = {
    "adapters": ("UnfitAdapter", "WrongBase", "load_adapter", "load_finished", "require_saved"),
    "build": (
        "base_checksum", "base_identity", "build_adapted", "build_base", "build_data", "build_model",
        "build_tokenizer", "shared_base",
    ),
    "spec": ("DataSpec", "MethodSpec", "ModelSpec", "TrackingSpec", "TrainSpec", "UnfitBase", "WandbSpec"),
    "telemetry": ("Laps", "Resources", "count_parameters"),
    "trainer": ("NonFiniteLoss", "OutOfMemory", "TrainingFailed", "packing_of", "train"),
}  # fmt: skip


def __getattr__(name: str):
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
