"""Data sets: loading, prompts, tokenization and packing.

`load_rows` reads a data set from a folder or the hub. `load_training` returns a set's training rows, without held-out
ones, and `load_mixture` those of several sets. `to_examples` turns rows into prompts and responses, `tokenize` into ids
and labels (cached by `token_cache`), and `pack` puts several examples into one row.
"""

from reproduction.data.catalogue import DATASETS, DataError, DatasetSpec
from reproduction.data.examples import Example, instruction_of, mixture_examples, to_examples
from reproduction.data.mixture import load_mixture, load_training
from reproduction.data.packing import pack
from reproduction.data.sources import load_rows
from reproduction.data.splits import limit, validation
from reproduction.data.templates import Template, load_template, render
from reproduction.data.tokenization import TokenizedSet, encode_prompts, tokenize

__all__ = [
    "DATASETS", "DataError", "DatasetSpec", "Example", "Template", "TokenizedSet", "encode_prompts", "instruction_of",
    "limit", "load_mixture", "load_rows", "load_template", "load_training", "mixture_examples", "pack", "render",
    "to_examples", "tokenize", "validation",
]  # fmt: skip
