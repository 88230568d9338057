"""Plain texts as a benchmark, and a model's answers to them."""

from pathlib import Path

from oracle import TOKENIZER

from reproduction.data import DatasetSpec
from reproduction.evals import Protocol
from reproduction.evals.generation import Generation
from reproduction.evals.items import Prompt
from reproduction.evals.task import RAW, TEMPLATE, Task

TEXTS = [
    "a", "Count to ten: one, two", "def f(x):", "What is 2 + 2? Say a number.", "…é…", "The same length!", "  spaces "
]  # fmt: skip


class Texts(Task):
    data = DatasetSpec("texts", ("text",), {"test": "test"})
    layouts = (RAW, TEMPLATE)

    def check(self, protocol) -> None:
        pass

    def instruction(self, row):
        return row["text"], ""

    def raw(self, row):
        return row["text"]

    def choices(self, row, layout):
        return "A", "B"

    def read(self, row, raw):
        return {"parsed": raw, "gold": None, "scores": {"long": float(len(raw) > 9)}}


TASK = Texts()


def protocol(**changes) -> Protocol:
    settings = {"benchmark": "texts", "file": Path(__file__), "protocol_version": 1, "max_new_tokens": 12}
    return Protocol(**settings | {"layout": RAW} | changes)


def rows(texts=TEXTS) -> list[dict]:
    return [{"id": f"item/{number}", "text": text} for number, text in enumerate(texts)]


def said(
    model, texts=TEXTS, *, tokenizer=TOKENIZER, batch_size: int = 3, stops=(), apart: bool = False, **settings
) -> list[list[str]]:
    """Return all samples of each text, decoded without files."""
    asked = [Prompt(row, row["text"], apart=apart) for row in rows(texts)]
    samples = list(range(settings.get("samples", 1)))
    generation = Generation(model, tokenizer, asked, protocol=protocol(**settings), stops=stops)
    batches = generation.batches([(prompt, samples) for prompt in asked], batch_size)
    found = {(r["item_id"], r["sample"]): r["raw"] for batch in batches for r in generation.answer(batch)}
    return [[found[prompt.item_id, sample] for sample in samples] for prompt in asked]
