"""What the committed reference of the small scale, a real pre-trained model, says about the paper, in ten sentences."""

from reproduction.report.real.sentences import listed, real_sentences, write_real

__all__ = ["listed", "real_sentences", "write_real"]
