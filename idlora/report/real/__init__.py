"""What the committed reference of the small scale, a real pre-trained model, says about the paper.

`real_sentences` says it in at most seven sentences; `read_block` has who stands where, for the audit's claims too.
"""

from idlora.report.real.blocks import (
    AHEAD,
    BEHIND,
    BEST_RATES,
    CONTROLS,
    LEVEL,
    LONGER,
    ONE_RUN,
    PAPER_RATE,
    Block,
    Pair,
    read_block,
)
from idlora.report.real.sentences import listed, real_sentences, write_real

__all__ = [
    "AHEAD",
    "BEHIND",
    "BEST_RATES",
    "CONTROLS",
    "LEVEL",
    "LONGER",
    "ONE_RUN",
    "PAPER_RATE",
    "Block",
    "Pair",
    "listed",
    "read_block",
    "real_sentences",
    "write_real",
]
