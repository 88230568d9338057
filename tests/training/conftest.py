"""A Llama of two layers with random weights on disk, and a few rows to train it on."""

import gc
from pathlib import Path

import pytest
import torch
from byte_tokenizer import VOCABULARY, byte_tokenizer
from cells import METHODS, examples
from transformers import LlamaConfig, LlamaForCausalLM

from reproduction.data import TokenizedSet, tokenize
from reproduction.training import MethodSpec, ModelSpec

# Each run of the Trainer collects garbage; frozen objects, those of all imported modules, are skipped.
gc.freeze()


def save_base(folder: Path, seed: int) -> ModelSpec:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return ModelSpec(name=folder.name, label=folder.name, path_or_id=str(folder))


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> ModelSpec:
    return save_base(tmp_path_factory.mktemp("bases") / "small", seed=7)


@pytest.fixture(scope="session")
def other_base(tmp_path_factory) -> ModelSpec:
    return save_base(tmp_path_factory.mktemp("bases") / "other", seed=8)


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="session")
def tokenized(tokenizer) -> TokenizedSet:
    return tokenize(examples(), tokenizer, max_length=64)


@pytest.fixture(params=METHODS)
def method(request) -> MethodSpec:
    """Each tuning method in turn."""
    return METHODS[request.param]
