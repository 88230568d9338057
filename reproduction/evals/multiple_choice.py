"""Questions with lettered choices, scored by likelihood or by a generated answer that lm-eval's filters parse.

Likelihood: the most probable letter after the prompt. Score: acc. Extra field: loglikelihoods of the letters.
Generated: a greedy answer, parsed twice. Scores: strict, the answer begins with the right letter, followed by
punctuation or the end of the line; flexible, the first letter that is meant as a choice is the right one.

The layout "raw" formats a question like lm-eval, with the letters " A", " B", …; in the layout "template" the letters
are "A", "B", … at the start of the response. An answer that repeats a choice's words without its letter does not
parse. Extra field if the question has one: subject.
"""

from typing import Any

from reproduction.evals.lm_eval import exact_match, first_match
from reproduction.evals.task import RAW, TEMPLATE, Task

LETTERS = "ABCDE"

_FIRST = r"""\A\s*[(\["'*]*([A-E])(?=[)\]"*.:,;]|'(?!\w)|\s*\Z|\s*\n)"""
"""Matches the first letter of an answer: "B", "(B)", "B. because", but not "B or C"."""

_MEANT = rf"""(?x)
    {_FIRST}
    | \A(?s:.*?)(?i:\b(?:answer|choice|option|letter)\b(?:\s+(?:is|would\s+be|should\s+be))?)
      [\s:=]*[(\["'*]*([A-E])(?![\w'])
    | \A\s*[(\["'*]*([a-e])[)\]"'*.]*\s*\Z
    | \A(?s:.*?)(?<![\w'])([B-E]|A(?!\s+(?!(?:is|was|because|since|as|and|or)\b)[a-z]))(?![\w'])"""
"""Matches `_FIRST`, else the letter after "answer", else a lone letter, else the first separate letter."""

READINGS = {"strict": _FIRST, "flexible": _MEANT}


def question(text: Any, choices: list, gold: int, **own: Any) -> dict[str, Any]:
    """Return a row of question, choices and the answer's letter. Raises TypeError or ValueError if invalid."""
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

    def read(self, row, raw):
        gold, own = row["answer"], {"subject": row["subject"]} if "subject" in row else {}
        if isinstance(raw, str):
            found = {name: first_match(raw, pattern).upper() for name, pattern in READINGS.items()}
            scores = {name: exact_match(letter, gold) for name, letter in found.items()}
            return {"parsed": found, "gold": gold, "scores": scores, **own}
        letter, by_letter = LETTERS[raw.index(max(raw))], dict(zip(LETTERS, raw, strict=False))
        scores = {"acc": float(letter == gold)}
        return {"raw": letter, "parsed": letter, "gold": gold, "scores": scores, "loglikelihoods": by_letter, **own}


def _options(row: dict) -> str:
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=False))
