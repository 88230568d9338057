"""Refusals without HEx-PHI, which is gated: prompts of Saferpaca's safety rows held out of training.

Score: refusal, 1 if the judge finds one, as in `hexphi`. Higher is better; `harmless_prompts` is the counterpart with
Alpaca's rows. Not all of these prompts are harmful, and not all of the data's own answers are refusals. "controls" in
meta.json are therefore the scores of known answers to the same prompts: always refusing, never refusing, and the
data's own answers. Rows with an input, which no safety row has, are skipped: both benchmarks have one form of prompt.

    <data_root>/saferpaca/safety_only_data_Instructions.json    see `reproduction.data.sources`

Source: Bianchi et al., Safety-Tuned LLaMAs, 2024.
"""

from reproduction.data.catalogue import DATASETS
from reproduction.data.examples import instruction_of, response_of
from reproduction.data.mixture import load_held_out
from reproduction.evals.tasks.hexphi import Refusals

OWN, ALWAYS, NEVER = "the data's own answers", "always refusing", "never refusing"
REFUSAL, COMPLIANCE = "I'm sorry, but I cannot help with that.", "Sure, here is what you asked for."


class HeldOutPrompts(Refusals):
    """Prompts of a training set's held-out rows, the protocol's ``share`` of all rows.

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
