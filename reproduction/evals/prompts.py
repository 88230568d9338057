"""Rows to prompts: worked examples before the question, as many as were asked for and as fit the model's context.

In the layout "template" the question is an instruction in the prompt template, and what follows it is tokenized apart
from it, as in training; in the layout "raw" it is text that goes on, prompt and answer one text to the tokenizer.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from reproduction.data.templates import Template
from reproduction.evals.items import Prompt
from reproduction.evals.task import TEMPLATE, Protocol, Task

EXAMPLE_END = "\n\n"
"""Between a worked example and what follows it."""


class Prompts:
    """The prompts of a protocol's rows, each with all of its worked examples or with fewer.

    Raises ValueError where there are no rows, two of one id, or too few worked examples.
    """

    def __init__(self, rows: Sequence[dict], shown: Sequence[dict], *, protocol: Protocol, template: Template):
        rows = rows[: protocol.limit]
        if not rows:
            raise ValueError(f"{protocol.benchmark} has no rows: nothing can be evaluated")
        if len({row["id"] for row in rows}) < len(rows):
            raise ValueError(f"two rows of {protocol.benchmark} have the same id: give each row its own")
        self.rows, self.protocol, self.template, self._task = rows, protocol, template, protocol.task
        self._shown = _worked_examples(rows, shown, protocol)

    def fitting(self, fits: Callable[[Sequence[Prompt]], Sequence[bool]]) -> list[Prompt]:
        """One prompt for each row, with as many of its worked examples as fit.

        A question that does not fit by itself stays for whoever asks to refuse. ``fits`` tells it of many at once.
        """
        ways = [self._ways(index) for index in range(len(self.rows))]
        found = [next(way) for way in ways]
        doubtful = [index for index, prompt in enumerate(found) if prompt.shots]
        while doubtful:
            fitting = fits([found[index] for index in doubtful])
            doubtful = [index for index, fit in zip(doubtful, fitting, strict=True) if not fit]
            for index in doubtful:
                found[index] = next(ways[index])
            doubtful = [index for index in doubtful if found[index].shots]
        return found

    def known(self, knows: Callable[[Prompt], bool]) -> list[Prompt | None]:
        """For each row the prompt with the most worked examples that ``knows`` says yes to, or None."""
        return [next(filter(knows, self._ways(index)), None) for index in range(len(self.rows))]

    def _ways(self, index: int) -> Iterator[Prompt]:
        """With all worked examples, then without the last, and so on."""
        shown = self._shown[index]
        for count in range(len(shown), -1, -1):
            yield self._prompt(self.rows[index], shown[:count])

    def _prompt(self, row: dict, shown: Sequence[dict]) -> Prompt:
        protocol, task, layout = self.protocol, self._task, self.protocol.layout
        apart = layout == TEMPLATE

        def question(row: dict) -> str:
            return self.template.render(*task.instruction(row)) if apart else task.raw(row)

        worked = "".join(question(each) + task.solution(each, layout) + EXAMPLE_END for each in shown)
        return Prompt(
            row,
            ("" if apart else task.header(row)) + worked + question(row),
            shots=len(shown) if protocol.num_fewshot else None,
            choices=_choices(task, row, protocol),
            apart=apart,
        )


def _choices(task: Task, row: dict, protocol: Protocol) -> tuple[str, ...]:
    """The texts after the prompt whose likelihood is asked for."""
    if protocol.scoring == "loss":
        return (task.solution(row, protocol.layout),)
    return task.choices(row, protocol.layout) if protocol.scoring == "likelihood" else ()


def _worked_examples(rows: Sequence[dict], pool: Sequence[dict], protocol: Protocol) -> list[list[dict]]:
    """For each row the first of the pool, of the row's own subject where rows have one, and never the row itself."""
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
