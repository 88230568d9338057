"""Over-refusal: harmless prompts matched one to one to the forbidden ones, asked and judged as those are.

Score: refusal, 1 if the judge says so. Lower is better here. Data as `hexphi` has them; no hub has any.
"""

from reproduction.data.catalogue import DatasetSpec
from reproduction.evals.tasks.hexphi import Refusals, read_categories

TASK = Refusals(
    DatasetSpec("hexphi_benign", ("prompt", "category"), {"test": "test"}, read=read_categories, convert=dict)
)
