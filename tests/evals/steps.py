"""The two steps of an evaluation, for tests: in one folder, with what every test needs filled in."""

from pathlib import Path

from oracle import TOKENIZER

from reproduction.data.templates import ALPACA, Template
from reproduction.evals import Permissions, Protocol, score
from reproduction.evals.answering import answer
from reproduction.evals.prompts import Prompts
from reproduction.records import ANSWERS, META, AnswerLog, read_items, write_json

ALLOWED = Permissions(allow_code_execution=True)


def ask(
    model,
    protocol: Protocol,
    rows: list[dict],
    folder: Path,
    *,
    tokenizer=None,
    shown=(),
    template: Template = ALPACA,
    batch_size: int = 100,
    identity: str = "a model",
    **more,
) -> AnswerLog:
    """Answer into folder/answers; return the answers."""
    answer(
        model=model, tokenizer=tokenizer or getattr(model, "tokenizer", TOKENIZER), protocol=protocol, rows=rows,
        shown=list(shown), template=template, folder=folder / "answers", identity=identity, batch_size=batch_size,
        **more,
    )  # fmt: skip
    return AnswerLog(folder / "answers" / ANSWERS)


def store(protocol: Protocol, rows: list[dict], answers: list, folder: Path, *, shown=(), template=ALPACA) -> None:
    """What the first step leaves in its folder of a model that says this: of each row a text, all its samples, the
    log-probabilities of its choices, or the fields of its loss.

    Nothing is decoded: a stop string in a text stays.
    """
    prompts = Prompts(rows, list(shown), protocol=protocol, template=template).fitting(lambda some: [True] * len(some))
    kind = "logprobs" if protocol.scoring == "likelihood" else "raw"
    write_json(folder / META, {"model": "a model"})
    AnswerLog(folder / ANSWERS).append(
        {"item_id": prompt.item_id, "prompt_hash": prompt.prompt_hash, "sample": sample}
        | (said if isinstance(said, dict) else {kind: said})
        for prompt, given in zip(prompts, answers, strict=True)
        for sample, said in enumerate([given] if kind == "logprobs" or isinstance(given, str | dict) else given)
    )


def judge(
    protocol: Protocol,
    rows: list[dict],
    folder: Path,
    *,
    shown=(),
    template: Template = ALPACA,
    identity: str = "a model",
    permissions: Permissions = ALLOWED,
    progress=None,
) -> list[dict]:
    """Score folder/answers into folder/eval; return the records in the order of the rows."""
    score(
        protocol=protocol, rows=rows, shown=list(shown), template=template, answers=folder / "answers",
        identity=identity, folder=folder / "eval", permissions=permissions, progress=progress,
    )  # fmt: skip
    found = {(each["item_id"], each["sample"]): each for each in read_items(folder / "eval")}
    return [found[row["id"], sample] for row in rows[: protocol.limit] for sample in range(protocol.samples)]


def evaluate(model, protocol: Protocol, rows: list[dict], folder: Path, *, permissions=ALLOWED, **more) -> list[dict]:
    """Run both steps; return the records in the order of the rows."""
    ask(model, protocol, rows, folder, **more)
    return judge(protocol, rows, folder, permissions=permissions, shown=more.get("shown", ()))


def scored(protocol: Protocol, rows: list[dict], answers: list, folder: Path, **more) -> list[dict]:
    """Return the records of given answers, in the order of the rows."""
    store(protocol, rows, answers, folder / "answers")
    return judge(protocol, rows, folder, **more)


def prompt_texts(protocol: Protocol, rows: list[dict], shown=(), template: Template = ALPACA) -> list[str]:
    """Return the prompts for a model of unlimited context."""
    prompts = Prompts(rows, list(shown), protocol=protocol, template=template)
    return [prompt.text for prompt in prompts.fitting(lambda some: [True] * len(some))]
