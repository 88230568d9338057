"""Questions with lettered choices, by likelihood or by a generated answer that lm-eval's filters read.

Likelihood: the letter that is most probable after the prompt. Score: acc. Extra field: loglikelihoods, of each letter.
Generated: a greedy answer, read twice. Scores: strict, the answer begins with the right letter, set off from what
follows by a sign or the line's end; flexible, its first letter that is meant as a choice is the right one.

In the layout "raw" a question is laid out as lm-eval does it, and the letters are " A", " B", …; in the layout
"template" they are "A", "B", … at the start of the response. An answer that repeats a choice's words instead of its
letter is not read. Extra field of a question that has one: subject.
"""

from typing import Any

from reproduction.evals.lm_eval import exact_match, first_match
from reproduction.evals.task import RAW, TEMPLATE, Task

LETTERS = "ABCDE"

_FIRST = r"""\A\s*[(\["'*]*([A-E])(?=[)\]"*.:,;]|'(?!\w)|\s*\Z|\s*\n)"""
"""The letter that the answer begins with: "B", "(B)", "B. because", but not "B or C"."""

_MEANT = rf"""(?x)
    {_FIRST}
    | \A(?s:.*?)(?i:\b(?:answer|choice|option|letter)\b(?:\s+(?:is|would\s+be|should\s+be))?)
      [\s:=]*[(\["'*]*([A-E])(?![\w'])
    | \A\s*[(\["'*]*([a-e])[)\]"'*.]*\s*\Z
    | \A(?s:.*?)(?<![\w'])([B-E]|A(?!\s+(?!(?:is|was|because|since|as|and|or)\b)[a-z]))(?![\w'])"""
"""That one, else the one after "answer", else a letter alone, else the first that stands by itself."""

READINGS = {"strict": _FIRST, "flexible": _MEANT}


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
