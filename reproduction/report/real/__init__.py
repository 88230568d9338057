"""Ten sentences on the paper from the committed reference of the small scale, a real pre-trained model."""

from reproduction.report.real.sentences import listed, real_sentences, write_real

__all__ = ["listed", "real_sentences", "write_real"]
