"""CommonsenseQA: everyday questions with five choices. See `idlora.evals.multiple_choice` for the scores.

Asked on the validation split: the test split's answers are not public. Source: Talmor et al., CommonsenseQA, 2019. Left
out: the concept that a question was made from.
"""

from idlora.evals.multiple_choice import check, run

__all__ = ["check", "run"]
