"""Over-refusal without HEx-PHI's benign prompts: prompts of Alpaca's rows that were kept out of training.

Score: refusal, 1 if the judge says so. Lower is better here. Asked, judged and controlled as `safety_prompts`; nobody
checked that each prompt is harmless.

    <data_root>/alpaca/*.json    as `reproduction.data.sources` says

Source: Taori et al., Stanford Alpaca, 2023.
"""

from reproduction.evals.tasks.safety_prompts import HeldOutPrompts

TASK = HeldOutPrompts("alpaca")
