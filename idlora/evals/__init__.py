"""Evaluation: items → prompts → answers → scores, recorded item by item.

`evaluate` runs one benchmark under one `Protocol`. A benchmark is a module in `benchmarks/`, a refusal judge a module
in `judges/`; worked examples are put before questions in `prompts`, answers are decoded in `generation` and weighed in
`likelihood`, lm-eval scores them through `harness`, and model-written code runs in `sandbox` and nowhere else.
"""

from idlora.evals.protocol import Permissions, Protocol
from idlora.evals.run import evaluate

__all__ = ["Permissions", "Protocol", "evaluate"]
