"""A model that the test of shared evaluations gives its processes, which import this by name."""

import os
from pathlib import Path

import torch
from byte_tokenizer import VOCABULARY, byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

TOKENIZER = byte_tokenizer()


def load_watched(watch: Path, *, weights: bool = True):
    """A small random model that writes what it reads to ``watch``/asked.<process id>, beside loaded.<process id>.

    The process that takes ``watch``/die away is killed when it would read its second batch of prompts.
    """
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=VOCABULARY, initializer_range=0.2, max_position_embeddings=8192, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cpu" if weights else "meta"):
        model = LlamaForCausalLM(config).double().eval()
    if weights:
        (watch / f"loaded.{os.getpid()}").touch()
        model.register_forward_pre_hook(_Watching(watch), with_kwargs=True)
    return model, TOKENIZER


class _Watching:
    def __init__(self, watch: Path):
        self.watch, self.batches = watch, 0

    def __call__(self, model, args, kwargs):
        if kwargs["input_ids"].shape[1] == 1:
            return
        self.batches += 1
        if self.batches == 2 and (self.watch / "die").exists():
            (self.watch / "die").unlink()
            os.kill(os.getpid(), 9)
        with (self.watch / f"asked.{os.getpid()}").open("a") as file:
            for ids, mask in zip(kwargs["input_ids"], kwargs["attention_mask"], strict=True):
                print(ascii(TOKENIZER.decode(ids[mask.bool()])), file=file)
