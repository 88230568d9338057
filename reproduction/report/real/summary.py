"""The shortest answer of the small scale's reference: a verdict of two sentences, and one table."""

import re
from pathlib import Path

from reproduction.report.documents import pipes
from reproduction.report.grid import UNTUNED
from reproduction.report.rates import spelled
from reproduction.report.real.facts import Facts
from reproduction.report.real.phrases import LORA, of_idlora
from reproduction.report.real.sentences import render
from reproduction.report.standings import LEVEL, LOSS, Pair, Row, runs


def verdict(results: Path, experiments: Path) -> str:
    """Return two sentences on whether ID-LoRA is ahead of LoRA, as Markdown; "" if the reference lacks a table.

    Raises the errors of `Facts`.
    """
    if not Facts.are_in(results):
        return ""
    facts = Facts(results, experiments)
    resolved = [pair for block in (facts.best, facts.paper) for pair in of_idlora(block) if pair.verdict != LEVEL]
    return " ".join(render("verdict.md", facts, resolved=resolved).split())


def short_answers(facts: Facts) -> dict[str, str]:
    """Return the answers of answers.md by name, as Markdown."""
    parts = re.split(r"^- (\w+):", render("answers.md", facts, runs=runs), flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def summary_table(results: Path, experiments: Path) -> str:
    """Return Table 2 in short, as Markdown: a row a method, at its best learning rate and at the paper's.

    Of the scores it has each benchmark's first column that is not at chance or zero.

    Raises the errors of `Facts`, and `RecordError` if the reference lacks a table.
    """
    facts = Facts(results, experiments)
    columns: dict[str, str] = {}
    for pair in of_idlora(facts.best):
        columns.setdefault(facts.headings[pair.column].split()[0], pair.column)
    headings = ["Method", "# trained", "best rate", "loss", "against LoRA", f"loss at {facts.paper_rate}"]
    body = []
    for method, row in facts.best.rows.items():
        rate = facts.rates[method]["best_rate"] if method in facts.rates else ""
        body.append(
            [
                row["method_label"],
                f"{int(row['parameters_trainable']):,}",
                spelled(float(rate)) if rate else "—",
                _value(row, LOSS),
                "—" if method == UNTUNED else _against(facts.best.pairs.get((method, LORA, LOSS))),
                facts.paper.rows[method][LOSS],
                *(_value(row, column) for column in columns.values()),
            ]
        )
    return pipes([*headings, *(f"{facts.headings[column]} (%)" for column in columns.values())], body, left=1)


def _value(row: Row, column: str) -> str:
    spread = row.get(f"{column}_spread")
    return f"{row[column]} ± {spread}" if spread else row[column]


def _against(pair: Pair | None) -> str:
    return "—" if pair is None else f"{pair.verdict.split()[0]} {pair.amount}"
