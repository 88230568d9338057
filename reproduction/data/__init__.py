"""Text to token ids and loss mask.

`load_rows` reads a data set from a folder or the hub, `to_examples` turns its rows into prompts and responses,
`tokenize` into ids and labels (`tokenize_once` keeps them), `pack` puts several examples into a row. `load_training`
gives the rows of a set that may be trained on, `validation` and `limit` cut them; `load_mixture` and `mixture_examples`
serve a training set made of several. Names are imported on first use, so that `reproduction.data.templates` costs
nothing.
"""

from importlib import import_module

_HOME = {
    "render": "templates",
    "Template": "templates",
    "load_template": "templates",
    "DatasetSpec": "catalogue",
    "DataError": "catalogue",
    "DATASETS": "catalogue",
    "load_rows": "sources",
    "Example": "examples",
    "to_examples": "examples",
    "asked": "examples",
    "validation": "splits",
    "limit": "splits",
    "load_training": "mixture",
    "load_mixture": "mixture",
    "mixture_examples": "mixture",
    "TokenizedSet": "tokenization",
    "encode_prompts": "tokenization",
    "tokenize": "tokenization",
    "tokenize_once": "token_cache",
    "pack": "packing",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
