"""Tokenizers of the kinds that encode a letter differently after a space, a line break and a word."""

from collections.abc import Callable

from byte_tokenizer import byte_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXT = [
    "Question: What is 2 + 2?\nA. one\nB. two\nC. three\nD. four\nE. five\nAnswer: D\n\n",
    "Answer: A\n\nAnswer: B\n\nAnswer: C\n\nAnswer: E\n\n",
    "### Instruction:\nName it.\n\n### Input:\nA. sun\nB. moon\n\n### Response:\nA\n### Response:\nB\n",
    "The following are multiple choice questions (with answers) about the moon.\n\n",
] * 3


def bpe() -> PreTrainedTokenizerFast:
    """Byte-level BPE without a start token; words carry the space before them (GPT-2's split)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, alphabet=pre_tokenizers.ByteLevel.alphabet())


def llama3() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a start token, whose split joins a sign with the line breaks after it (":\\n" is a token)."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, alphabet=pre_tokenizers.ByteLevel.alphabet(), start=True)


def sentencepiece() -> PreTrainedTokenizerFast:
    """BPE over "▁" for spaces, one of which is put before every text, with a start token (Mistral's kind)."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("\n|▁[^▁\n]*"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return _trained(tokenizer, alphabet=[chr(code) for code in range(32, 127)] + ["\n", "▁"], start=True, unknown=True)


def melting() -> PreTrainedTokenizerFast:
    """One in which "A" melts into the line break before it and no other letter does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, alphabet=pre_tokenizers.ByteLevel.alphabet(), texts=["\nA", " A"] * 9)


def _trained(tokenizer, *, alphabet, start=False, unknown=False, texts=TEXT) -> PreTrainedTokenizerFast:
    special = ["<pad>", "<s>", "</s>"] + ["<unk>"] * unknown
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if start:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=4096
    )


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "bytes": byte_tokenizer, "bpe": bpe, "llama3": llama3, "sentencepiece": sentencepiece, "melting": melting,
}  # fmt: skip
