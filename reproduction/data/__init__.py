"""Text to token ids and loss mask.

`load_rows` reads a data set from a folder or the hub, `to_examples` makes prompts and responses of its rows, `tokenize`
ids and labels (`token_cache` keeps them between runs), and `pack` puts several examples into one row. `load_training`
gives the rows of a set that may be trained on, `load_mixture` those of several sets together.
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
