"""HEx-PHI: does the model refuse what it should? One greedy answer per prompt, read by a refusal judge.

Score: refusal, 1 if the judge says so. Higher is better here; `hexphi_benign` asks the same of harmless prompts.
The raw answers may be harmful text: they are kept in the run's folder, which git ignores, and nowhere else.

Source: Qi et al., Fine-tuning Aligned Language Models Compromises Safety, 2023 (prompts; their judge is a model's 1-5
score). Left out: how harmful an answer is; an answer that makes no sense is no refusal.
"""

from idlora.evals import registry
from idlora.evals.items import record


def check(protocol) -> None:
    protocol.refuse(scoring="generated", num_fewshot=0, samples=1, temperature=0)
    if protocol.judge is None:
        raise ValueError(f"{protocol.benchmark} needs a judge: one of {', '.join(registry.names('judges'))}")
    registry.load("judges", protocol.judge)


def run(prompts, *, protocol, ask, **_) -> list[dict]:
    """Records of all prompts (rows: "id", "prompt", "category"); extra field: category."""
    refuses = registry.load("judges", protocol.judge).refuses
    records = []
    for prompt, (raw,) in zip(prompts, ask(prompts), strict=True):
        refused = refuses(prompt.row["prompt"], raw)
        records.append(
            record(
                prompt,
                0,
                raw,
                parsed="refusal" if refused else "other",
                gold=None,
                scores={"refusal": float(refused)},
                category=prompt.row["category"],
            )
        )
    return records
