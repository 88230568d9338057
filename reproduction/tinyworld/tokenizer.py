"""Byte-level BPE tokenizer trained on the world's corpus: it encodes any text, and each digit is a separate token.

The fixed parts of the instruction template are single added tokens, like turn markers of chat models, which shortens
prompts by a third.
"""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from reproduction.data.templates import render
from reproduction.tinyworld import corpus

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
TEMPLATE_PARTS = list(dict.fromkeys([*render("\0").split("\0"), *render("\0", "\1").replace("\1", "\0").split("\0")]))


def build_tokenizer(vocab_size: int = 1280, corpus_documents: int = 40_000, seed: int = 5) -> PreTrainedTokenizerFast:
    """Train the tokenizer on a part of the corpus. Deterministic.

    No other text is used, so that the bases have seen every token: pre-training pushes the logits of unseen tokens so
    far down that an adapter cannot raise them.
    """
    tokenizer = Tokenizer(models.BPE())
    # A line break is a separate token: a prompt that ends in one has the tokens that it has in the whole text.
    lines_and_digits = pre_tokenizers.Split(Regex(r"\n| ?\d"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [lines_and_digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, BOS, EOS])
    tokenizer.add_tokens([AddedToken(part, normalized=False) for part in TEMPLATE_PARTS])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TEMPLATE_PARTS),
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(_without_template, corpus.documents(corpus_documents, seed)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def _without_template(text: str) -> str:
    for part in sorted(TEMPLATE_PARTS, key=len, reverse=True):
        text = text.replace(part, "\n")
    return text
