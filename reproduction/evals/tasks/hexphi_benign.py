"""Over-refusal: harmless prompts matched one to one to HEx-PHI's, evaluated in the same way.

Score: refusal, 1 if the judge finds one. Lower is better. Same files as `hexphi`; not on the hub.
"""

from reproduction.data.catalogue import DatasetSpec
from reproduction.evals.tasks.hexphi import Refusals, read_categories

TASK = Refusals(
    DatasetSpec("hexphi_benign", ("prompt", "category"), {"test": "test"}, read=read_categories, convert=dict)
)
