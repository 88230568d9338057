"""Small tables as Markdown, LaTeX and CSV files."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reproduction.records import write_text
from reproduction.records.files import one_sentence

MARKUP = re.compile(
    r"""[\\`*\[\]|$~]           # code, emphasis, links and images, cells, mathematics
    | (?<!\w)_ | _(?!\w)       # emphasis: within a word an underscore is one
    | <(?=[A-Za-z/!?])         # HTML and links
    | &(?=\#?\w+;)             # a character's name
    | ^[\#>+=-]                # a heading, a quotation, a list""",
    re.VERBOSE,
)
LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
    "<": "$<$", ">": "$>$", "†": "$^\\dagger$", "—": "---", "±": "$\\pm$", "°": "$^\\circ$",
}  # fmt: skip


def document(title: str, *parts: str) -> str:
    """Return a Markdown document: a heading, and paragraphs or tables (`pipes`)."""
    return "\n\n".join([f"# {title}", *parts]) + "\n"


def pipes(headings: list[str], rows: list[list[str]], *, left: int = 2, labels: int | None = None) -> str:
    """Return a Markdown table whose columns after the first ``left`` are right-aligned.

    The first ``labels`` columns (default: ``left``) hold plain text, which is escaped by `literal`; the others hold
    Markdown.
    """
    labels = left if labels is None else labels
    body = [[literal(cell) for cell in row[:labels]] + [_in_a_cell(cell) for cell in row[labels:]] for row in rows]
    lines = [map(_in_a_cell, headings), ["---"] * left + ["---:"] * (len(headings) - left), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _in_a_cell(markdown: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", markdown)


def literal(text: str) -> str:
    """Escape plain text, such as a model's label, as one line of Markdown."""
    return MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def booktabs(headings: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str) -> str:
    """Return a LaTeX ``table`` with all columns but the first right-aligned; its first line names its package."""
    heading, *body = (" & ".join(map(escape, line)) + " \\\\" for line in (headings, *rows))
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering\\scriptsize",
        f"  \\begin{{tabular}}{{l*{{{len(headings) - 1}}}{{r}}}}",
        "    \\toprule",
        f"    {heading}",
        "    \\midrule",
        *(f"    {line}" for line in body),
        "    \\bottomrule",
        "  \\end{tabular}",
        f"  \\caption{{{escape(caption)}}}",
        f"  \\label{{tab:{label}}}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape plain text for LaTeX."""
    return text.translate(str.maketrans(LATEX))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, none if it does not exist. Raises `RecordError` if it cannot be read."""
    if not path.is_file():
        return []
    with one_sentence("read", path), path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file atomically with Unix line ends; a missing column is empty, an unknown one raises ValueError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
