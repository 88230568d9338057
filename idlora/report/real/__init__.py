"""What the committed reference of the small scale, a real pre-trained model, says about the paper.

`real_sentences` says it in at most seven sentences; `blocks` has who stands where, for the audit's claims too.
"""

from idlora.report.real.blocks import AHEAD, BEHIND, LEVEL
from idlora.report.real.sentences import listed, real_sentences, write_real

__all__ = ["AHEAD", "BEHIND", "LEVEL", "listed", "real_sentences", "write_real"]
