"""Setting up and running the HF Trainer: seeds, building, checkpoints, resource figures. Knows no method by name.

Names are imported on first use: the specs cost nothing, the Trainer seconds.
"""

from importlib import import_module

_HOME = {
    "DataSpec": "spec",
    "MethodSpec": "spec",
    "ModelSpec": "spec",
    "TrackingSpec": "spec",
    "TrainSpec": "spec",
    "WandbSpec": "spec",
    "UnfitAdapter": "adapters",
    "UnfitBase": "spec",
    "WrongBase": "adapters",
    "base_checksum": "build",
    "base_identity": "build",
    "build_adapted": "build",
    "build_base": "build",
    "build_data": "build",
    "build_model": "build",
    "build_tokenizer": "build",
    "load_adapter": "adapters",
    "load_finished": "adapters",
    "require_saved": "adapters",
    "NonFiniteLoss": "trainer",
    "OutOfMemory": "trainer",
    "TrainingFailed": "trainer",
    "packing_of": "trainer",
    "train": "trainer",
    "shared_base": "bases",
    "Laps": "telemetry",
    "Resources": "telemetry",
    "count_parameters": "telemetry",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
