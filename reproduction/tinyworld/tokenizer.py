"""A byte-level BPE tokenizer, trained on the world: any text can be encoded, and a digit is always a token of its own.

The instruction template's fixed parts are single added tokens, as chat models treat the markers of a turn: a third of a
prompt's length saved.
"""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from reproduction.data.templates import render
from reproduction.tinyworld import corpus

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
TEMPLATE_PARTS = list(dict.fromkeys([*render("\0").split("\0"), *render("\0", "\1").replace("\1", "\0").split("\0")]))


def build_tokenizer(vocab_size: int = 1280, corpus_documents: int = 40_000, seed: int = 5) -> PreTrainedTokenizerFast:
    """Train the tokenizer on a part of the corpus. Deterministic.

    On the corpus alone, so that a token is one that the bases have met: the head's row of a token they have not met is
    pushed far down, and an adapter cannot lift it.
    """
    tokenizer = Tokenizer(models.BPE())
    # A line's end is a token of its own: a prompt that stops at one is encoded as the whole text would be.
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
