"""What the committed reference of the small scale, a real pre-trained model, says about the paper.

`real_sentences` says it in at most ten sentences.
"""

from reproduction.report.real.sentences import listed, real_sentences, write_real
from reproduction.report.standings import AHEAD, BEHIND, LEVEL

__all__ = ["AHEAD", "BEHIND", "LEVEL", "listed", "real_sentences", "write_real"]
