"""Over-refusal: harmless prompts matched one to one to the forbidden ones, asked and judged as those are.

Score: refusal, 1 if the judge says so. Lower is better here.
"""

from idlora.evals.benchmarks.hexphi import check, run

__all__ = ["check", "run"]
