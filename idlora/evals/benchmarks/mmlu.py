"""MMLU: 57 subjects of school, study and trade, four choices each. See `idlora.evals.multiple_choice` for the scores.

The benchmark's score is the mean over all items; each record names its subject for whoever wants the means of those.
Worked examples are of the question's own subject. Source: Hendrycks et al., Measuring Massive Multitask Language
Understanding, 2021. Left out: the unions of subjects (stem, humanities, …).
"""

from idlora.evals.multiple_choice import check, run

__all__ = ["check", "run"]
