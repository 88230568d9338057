"""Questions with lettered choices, scored by lm-eval on stored answers.

Likelihood: the letter that is most probable after the prompt. Score: acc. Extra field: loglikelihoods, of each letter.
Generated: a greedy answer, read twice. Scores: strict, the answer begins with the right letter, set off from what
follows by a sign or the line's end; flexible, its first letter that is meant as a choice is the right one.

In the layout "raw" a question is laid out as lm-eval does it, and the letters are " A", " B", …; in the layout
"template" they are "A", "B", … at the start of the response. An answer that repeats a choice's words instead of its
letter is not read. Extra field of a question that has one: subject. Left out: chain of thought, and scoring the
choices' texts.
"""

from typing import Any

from reproduction.evals.items import Prompt, record
from reproduction.evals.lm_eval import LETTERS, scored
from reproduction.evals.task import RAW, TEMPLATE, Task

LIKELIHOOD = {
    "task": "multiple_choice_likelihood",
    "output_type": "multiple_choice",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}

_FIRST = r"""\A\s*[(\["'*]*([A-E])(?=[)\]"*.:,;]|'(?!\w)|\s*\Z|\s*\n)"""
"""The letter that the answer begins with: "B", "(B)", "B. because", but not "B or C"."""

_MEANT = rf"""(?x)
    {_FIRST}
    | \A(?s:.*?)(?i:\b(?:answer|choice|option|letter)\b(?:\s+(?:is|would\s+be|should\s+be))?)
      [\s:=]*[(\["'*]*([A-E])(?![\w'])
    | \A\s*[(\["'*]*([a-e])[)\]"'*.]*\s*\Z
    | \A(?s:.*?)(?<![\w'])([B-E]|A(?!\s+(?!(?:is|was|because|since|as|and|or)\b)[a-z]))(?![\w'])"""
"""That one, else the one after "answer", else a letter alone, else the first that stands by itself."""

GENERATED = {
    "task": "multiple_choice_generated",
    "output_type": "generate_until",
    "doc_to_target": "letter",
    "filter_list": [
        {"name": name, "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]}
        for name, pattern in (("strict", _FIRST), ("flexible", _MEANT))
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}],
}


def question(text: Any, choices: list, gold: int, **own: Any) -> dict[str, Any]:
    """A row: its question, its choices and the answer's letter. Raises TypeError or ValueError for what is none."""
    if not all(isinstance(each, str) for each in (text, *choices)):
        raise TypeError("its texts are no text")
    if not 0 <= gold < len(choices) <= len(LETTERS) or len(choices) < 2:
        raise ValueError(f"answer {gold} of {len(choices)} choices, where a question has 2 to {len(LETTERS)}")
    return {**own, "question": text, "choices": choices, "answer": LETTERS[gold]}


class MultipleChoice(Task):
    """Rows: "id", "question", "choices", "answer" (a letter), perhaps "subject"."""

    unit = "question"
    layouts = (TEMPLATE, RAW)

    def check(self, protocol) -> None:
        protocol.refuse(samples=1, temperature=0, judge=None)

    def instruction(self, row):
        return row["question"], _options(row)

    def raw(self, row):
        return f"Question: {row['question'].strip()}\n{_options(row)}\nAnswer:"

    def solution(self, row, layout):
        return self.choices(row, layout)[LETTERS.index(row["answer"])]

    def choices(self, row, layout):
        return tuple(" " * (layout == RAW) + letter for letter in LETTERS[: len(row["choices"])])

    def stops(self, layout):
        return ("\nQuestion:",)

    def score(self, prompts, answers, *, protocol, **_):
        if protocol.scoring == "likelihood":
            fields = [
                {"choices": list(prompt.choices), "gold": LETTERS.index(prompt.row["answer"])} for prompt in prompts
            ]
            # The second of each pair, whether greedy decoding would say it, is read by no metric of ours.
            pairs = [[(logprob, False) for logprob in logprobs] for logprobs in answers]
            read = map(_by_likelihood, answers, scored(LIKELIHOOD, fields, pairs))
        else:
            read = map(_by_letter, answers, scored(GENERATED, [{"letter": p.row["answer"]} for p in prompts], answers))
        return [_record(prompt, **reading) for prompt, reading in zip(prompts, read, strict=True)]


def _options(row: dict) -> str:
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=False))


def _by_likelihood(logprobs: list[float], by_filter: dict) -> dict[str, Any]:
    letter = LETTERS[logprobs.index(max(logprobs))]
    ((_, metrics),) = by_filter.values()
    by_letter = dict(zip(LETTERS, logprobs, strict=False))
    return {"raw": letter, "parsed": letter, "scores": {"acc": float(metrics["acc"])}, "loglikelihoods": by_letter}


def _by_letter(samples: list[str], by_filter: dict) -> dict[str, Any]:
    return {
        "raw": samples[0],
        "parsed": {name: reading.upper() for name, (reading, _) in by_filter.items()},
        "scores": {name: float(metrics["exact_match"]) for name, (_, metrics) in by_filter.items()},
    }


def _record(prompt: Prompt, *, raw: str, **read: Any) -> dict[str, Any]:
    subject = {"subject": prompt.row["subject"]} if "subject" in prompt.row else {}
    return record(prompt, 0, raw, gold=prompt.row["answer"], **read, **subject)
