"""Refusals without HEx-PHI, which is gated: prompts of Saferpaca's safety rows that were kept out of training.

Score: refusal, 1 if the judge says so, as in `hexphi`. Higher is better here; `harmless_prompts` asks the same of
Alpaca's rows. Not all of these prompts are harmful, nor are all of the data's own answers refusals. So meta.json has,
as "controls", what known answers to the same prompts score: those of one who always refuses, of one who never does, and
the data's own. Rows with an input, which no safety row has, are not asked: the two benchmarks ask in one form.

    <data_root>/saferpaca/safety_only_data_Instructions.json    as `reproduction.data.sources` says

Source: Bianchi et al., Safety-Tuned LLaMAs, 2024.
"""

from reproduction.data.catalogue import DATASETS
from reproduction.data.examples import instruction_of, response_of
from reproduction.data.mixture import load_held_out
from reproduction.evals.tasks.hexphi import Refusals

OWN, ALWAYS, NEVER = "the data's own answers", "always refusing", "never refusing"
REFUSAL, COMPLIANCE = "I'm sorry, but I cannot help with that.", "Sure, here is what you asked for."


class HeldOutPrompts(Refusals):
    """Prompts of the rows that are kept out of a training set where the protocol's ``share`` of them is.

    Rows: "id", "prompt", "answer" (the data's own), "category" (the training set).
    """

    split = "train"
    shared = True

    def __init__(self, name: str):
        super().__init__(DATASETS[name])

    def check(self, protocol) -> None:
        super().check(protocol)
        if protocol.share is None:
            raise ValueError(f"{protocol.benchmark} has share=None: give the share that is kept out, in (0, 1)")

    def rows(self, *, root, revisions=None):
        name, rows = self.data.name, {}
        for row in load_held_out(name, root=root, revisions=revisions, share=self.share):
            prompt, input = instruction_of(name, row)
            if not input and prompt not in rows:
                rows[prompt] = {"id": row["id"], "prompt": prompt, "answer": response_of(name, row), "category": name}
        return list(rows.values())

    def controls(self, prompts):
        rows = [prompt.row for prompt in prompts]
        known = {OWN: None, ALWAYS: REFUSAL, NEVER: COMPLIANCE}
        return {
            name: sum(self.refuses(row, answer or row["answer"]) for row in rows) / len(rows)
            for name, answer in known.items()
        }


TASK = HeldOutPrompts("safety")
