"""Rows to prompts: worked examples before the question, as many as were asked for and as fit the model's context."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice

from idlora.data.templates import EXAMPLE_END, eval_answer, eval_header, eval_prompt
from idlora.evals.items import Prompt
from idlora.evals.protocol import Protocol


def examples(rows: Sequence[dict], pool: Sequence[dict], protocol: Protocol) -> list[list[dict]]:
    """For each row the worked examples that the protocol asks for: the first of the pool of the row's own subject
    (where rows have one), and never the row itself.

    Raises ValueError where the pool has too few.
    """
    count, by_subject = protocol.num_fewshot, defaultdict(list)
    for row in pool:
        by_subject[row.get("subject")].append(row)
    found = []
    for row in rows:
        others = (other for other in by_subject[row.get("subject")] if other["id"] != row["id"])
        found.append(list(islice(others, count)))
        if len(found[-1]) < count:
            raise ValueError(
                f"num_fewshot={count} needs as many worked examples and got {len(found[-1])} for {row['id']}: "
                "give rows of the training split"
            )
    return found


def prompts(
    rows: Sequence[dict],
    shown: Sequence[Sequence[dict]],
    *,
    protocol: Protocol,
    fits: Callable[[Sequence[str]], Sequence[bool]],
) -> list[Prompt]:
    """One prompt for each row: a header, its worked examples each with its answer, then the question.

    Where that does not fit, the last examples are dropped one by one, and `Prompt.shots` says what is left; a question
    that does not fit by itself stays for whoever asks to refuse. ``fits`` tells it of many texts at once.
    """
    counts = [len(some) for some in shown]

    def text(index: int) -> str:
        asked = (protocol.benchmark, rows[index], protocol.template)
        worked = "".join(
            eval_prompt(protocol.benchmark, example, protocol.template)
            + eval_answer(protocol.benchmark, example, protocol.template)
            + EXAMPLE_END
            for example in shown[index][: counts[index]]
        )
        return eval_header(*asked) + worked + eval_prompt(*asked)

    texts = [text(index) for index in range(len(rows))]
    doubtful = [index for index, count in enumerate(counts) if count]
    while doubtful:
        fitting = fits([texts[index] for index in doubtful])
        doubtful = [index for index, fit in zip(doubtful, fitting, strict=True) if not fit]
        for index in doubtful:
            counts[index] -= 1
            texts[index] = text(index)
        doubtful = [index for index in doubtful if counts[index]]
    shots = [count if protocol.num_fewshot else None for count in counts]
    return [Prompt(row, text, shots=n) for row, text, n in zip(rows, texts, shots, strict=True)]
