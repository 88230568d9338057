"""Models for tests: one with given answers, and small random ones."""

from types import SimpleNamespace

import torch
from byte_tokenizer import VOCABULARY, byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

TOKENIZER = byte_tokenizer()


class Oracle(torch.nn.Module):
    """Says `answers[prompt]`, a text or the ids of its tokens, token by token through an ordinary cache.

    The cache holds the number of the prompt as its keys, so it must be padded, repeated and cut as a real one.
    """

    def __init__(self, answers: dict[str, str | list[int]], default: str = "", tokenizer=TOKENIZER):
        super().__init__()
        self.tokenizer = tokenizer
        self.config = LlamaConfig(num_hidden_layers=1, max_position_embeddings=100_000)
        self.generation_config = SimpleNamespace(eos_token_id=None)
        self.device = torch.device("cpu")
        self.calls = 0
        end = tokenizer.eos_token_id
        said = [
            [*(tokenizer(each, add_special_tokens=False)["input_ids"] if isinstance(each, str) else each), end]
            for each in (*answers.values(), default)
        ]
        longest = max(map(len, said))
        self._said = torch.tensor([ids + [end] * (longest - len(ids)) for ids in said])  # the default is the last row
        prompts = tokenizer(list(answers))["input_ids"] if answers else []
        self._numbers = {tuple(ids): number for number, ids in enumerate(prompts)}

    def forward(self, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep):
        self.calls += 1
        batch, width = input_ids.shape
        keys = torch.zeros(batch, 1, width, 2, dtype=torch.float64)
        if past_key_values.get_seq_length() == 0:
            for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
                prompt = tuple(ids[mask.bool()].tolist())
                keys[row, 0, :, 0] = self._numbers.get(prompt, len(self._said) - 1)
                keys[row, 0, :, 1] = len(prompt)
        keys, _ = past_key_values.update(keys, keys, 0)
        number, length = keys[:, 0, 0].long().unbind(-1)
        place = (position_ids[:, -1] + 1 - length).clamp(max=self._said.shape[1] - 1)
        logits = torch.zeros(batch, 1, len(self.tokenizer))
        logits[:, 0].scatter_(1, self._said[number, place][:, None], 1e4)
        return SimpleNamespace(logits=logits)


SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, 
    "max_position_embeddings": 4096, "initializer_range": 0.2,
}  # fmt: skip


def small_model(kind: str = "llama", seed: int = 0, **changes):
    """A random model in float64, where equal computations in another order give equal tokens."""
    torch.manual_seed(seed)
    if kind == "mistral":
        return MistralForCausalLM(MistralConfig(**SMALL | changes, sliding_window=16)).double()
    return LlamaForCausalLM(LlamaConfig(**SMALL | changes)).double()
