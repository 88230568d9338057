"""A tokenizer that needs no file and no training: one token for each byte, and three special ones."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 3 + 256


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """<pad> is 0, <s> is 1, </s> is 2; no start token is added."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = {symbol: index for index, symbol in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=symbols, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=4096
    )
