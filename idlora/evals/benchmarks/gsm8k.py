"""GSM8K: word problems whose answer is one number, scored by lm-eval with a task of ours (`../tasks/gsm8k.yaml`).

Scores: strict, the number after "#### " equals the gold one; flexible, the last number of the answer does. Both are
compared as text without commas, dollar signs and a final full stop, so 18 is not 18.0.

Source: Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021. Left out: majority votes over samples.
"""

from idlora.evals.harness import score
from idlora.evals.items import record


def check(protocol) -> None:
    protocol.refuse(scoring="generated", samples=1, template="alpaca", judge=None)


def run(prompts, *, ask, **_) -> list[dict]:
    """Records of all prompts (rows: "id", "question", "answer"); parsed holds the reading of each filter."""
    scored = score("gsm8k", prompts, [{"answer": prompt.row["answer"]} for prompt in prompts], ask=ask)
    return [
        record(
            prompt,
            0,
            raw,
            parsed={name: sample["filtered_resps"][0] for name, sample in by_filter.items()},
            gold=prompt.row["answer"].rpartition("####")[2].strip(),
            scores={name: float(sample["exact_match"]) for name, sample in by_filter.items()},
        )
        for prompt, (raw, by_filter) in zip(prompts, scored, strict=True)
    ]
