"""Questions with lettered choices, scored by lm-eval with tasks of ours (`tasks/multiple_choice_*.yaml`).

Likelihood: the letter that is most probable after the prompt. Score: acc. Extra field: loglikelihoods, of each letter.
Generated: a greedy answer, read twice. Scores: strict, the answer begins with the right letter, set off from what
follows by a sign or the line's end; flexible, its first letter that is meant as a choice is the right one.

An answer that repeats a choice's words instead of its letter is not read. Extra field of a question that has one:
subject. Left out: chain of thought, and scoring the choices' texts.
"""

from collections.abc import Sequence

from idlora.data.templates import BENCHMARK_TEMPLATES, LETTERS, eval_choices
from idlora.evals.harness import score
from idlora.evals.items import Prompt, record
from idlora.evals.protocol import Protocol


def check(protocol: Protocol) -> None:
    """Raises ValueError for settings that a multiple-choice benchmark does not have."""
    protocol.refuse(samples=1, temperature=0, judge=None)
    if protocol.template not in BENCHMARK_TEMPLATES[protocol.benchmark]:
        known = ", ".join(BENCHMARK_TEMPLATES[protocol.benchmark])
        raise ValueError(f"{protocol.benchmark} has no template {protocol.template!r}: choose one of {known}")


def run(prompts: Sequence[Prompt], *, protocol: Protocol, ask, **_) -> list[dict]:
    """Records of all prompts (rows: "id", "question", "choices", "answer", perhaps "subject")."""
    task = f"multiple_choice_{protocol.scoring}"
    fields = [
        {
            "choices": eval_choices(protocol.benchmark, prompt.row, protocol.template),
            "gold": LETTERS.index(prompt.row["answer"]),
            "letter": prompt.row["answer"],
        }
        for prompt in prompts
    ]
    scored = score(task, prompts, fields, ask=ask)
    read = _likelihood if protocol.scoring == "likelihood" else _generated
    return [_record(prompt, **read(*each)) for prompt, each in zip(prompts, scored, strict=True)]


def _likelihood(logprobs: list[float], by_filter: dict[str, dict]) -> dict:
    letter = LETTERS[logprobs.index(max(logprobs))]
    (sample,) = by_filter.values()
    by_letter = dict(zip(LETTERS, logprobs, strict=False))
    return {"raw": letter, "parsed": letter, "scores": {"acc": float(sample["acc"])}, "loglikelihoods": by_letter}


def _generated(raw: str, by_filter: dict[str, dict]) -> dict:
    return {
        "raw": raw,
        "parsed": {name: sample["filtered_resps"][0].upper() for name, sample in by_filter.items()},
        "scores": {name: float(sample["exact_match"]) for name, sample in by_filter.items()},
    }


def _record(prompt: Prompt, *, raw: str, **read) -> dict:
    subject = {"subject": prompt.row["subject"]} if "subject" in prompt.row else {}
    return record(prompt, 0, raw, gold=prompt.row["answer"], **read, **subject)
