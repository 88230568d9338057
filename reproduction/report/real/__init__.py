"""Sentences on the paper from the committed reference of the small scale, a real pre-trained model."""

from reproduction.report.real.facts import Facts
from reproduction.report.real.sentences import listed, real_sentences, write_real
from reproduction.report.real.summary import short_answers, summary_table, verdict

__all__ = ["Facts", "listed", "real_sentences", "short_answers", "summary_table", "verdict", "write_real"]
