"""Over-refusal without HEx-PHI's benign prompts: prompts of Alpaca rows held out of training.

Score: refusal, 1 if the judge finds one. Lower is better. Prompts, judge and controls work as in `safety_prompts`. The
prompts were not checked for harmlessness one by one.

    <data_root>/alpaca/*.json    see `reproduction.data.sources`

Source: Taori et al., Stanford Alpaca, 2023.
"""

from reproduction.evals.tasks.safety_prompts import HeldOutPrompts

TASK = HeldOutPrompts("alpaca")
