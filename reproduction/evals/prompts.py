"""Prompts from rows: worked examples, as many as requested and as fit the model's context, then the question.

In the layout "template" the question is an instruction in the prompt template, and the answer is tokenized separately,
as in training. In the layout "raw" the answer continues the text, and both are tokenized together.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice

from reproduction.data.templates import Template
from reproduction.evals.items import Prompt
from reproduction.evals.task import TEMPLATE, Protocol


class Prompts:
    """The prompts of a protocol's rows, with all worked examples or fewer.

    Raises ValueError for no rows, a duplicate id, or too few worked examples.
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
        """Return one prompt per row, with as many worked examples as fit; ``fits`` checks a list of prompts.

        A prompt that does not fit without worked examples is returned anyway.
        """
        counts = [len(shown) for shown in self._shown]
        prompts = [self._prompt(index, count) for index, count in enumerate(counts)]
        doubtful = [index for index, count in enumerate(counts) if count]
        while doubtful:
            found = fits([prompts[index] for index in doubtful])
            too_long = [index for index, fit in zip(doubtful, found, strict=True) if not fit]
            for index in too_long:
                counts[index] -= 1
                prompts[index] = self._prompt(index, counts[index])
            doubtful = [index for index in too_long if counts[index]]
        return prompts

    def known(self, knows: Callable[[Prompt], bool]) -> list[Prompt | None]:
        """Return, for each row, the prompt with the most worked examples that satisfies ``knows``, or None."""
        return [
            next(filter(knows, (self._prompt(index, count) for count in range(len(shown), -1, -1))), None)
            for index, shown in enumerate(self._shown)
        ]

    def _prompt(self, index: int, count: int) -> Prompt:
        protocol, task, layout, row = self.protocol, self._task, self.protocol.layout, self.rows[index]
        apart = layout == TEMPLATE

        def question(row: dict) -> str:
            return self.template.render(*task.instruction(row)) if apart else task.raw(row)

        worked = "".join(f"{question(each)}{task.solution(each, layout)}\n\n" for each in self._shown[index][:count])
        choices = ()
        if protocol.scoring == "loss":
            choices = (task.solution(row, layout),)
        elif protocol.scoring == "likelihood":
            choices = task.choices(row, layout)
        return Prompt(
            row,
            ("" if apart else task.header(row)) + worked + question(row),
            shots=count if protocol.num_fewshot else None,
            choices=choices,
            apart=apart,
        )


def _worked_examples(rows: Sequence[dict], pool: Sequence[dict], protocol: Protocol) -> list[list[dict]]:
    """Return each row's worked examples: the first of the pool with its subject (if any), except the row itself."""
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
