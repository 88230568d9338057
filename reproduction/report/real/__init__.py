"""Sentences on the paper from the committed reference of the small scale, a real pre-trained model."""

from reproduction.report.real.sentences import listed, real_sentences, write_real
from reproduction.report.real.summary import summary_table, verdict

__all__ = ["listed", "real_sentences", "summary_table", "verdict", "write_real"]
