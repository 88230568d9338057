"""Over-refusal without HEx-PHI's benign prompts: prompts of Alpaca's rows that were kept out of training.

Score: refusal, 1 if the judge says so. Lower is better here. Asked, judged and controlled as `safety_prompts`.

    <data_root>/alpaca/*.json    as `reproduction.data.sources` says

Source: Taori et al., Stanford Alpaca, 2023. Left out: as in `safety_prompts`, and a check that each prompt is harmless.
"""

from reproduction.evals.tasks.safety_prompts import HeldOutPrompts

TASK = HeldOutPrompts("alpaca")
