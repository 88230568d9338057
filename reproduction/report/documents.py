"""Small tables of text as Markdown and LaTeX documents, for what needs no cells of a grid."""

import re
from collections.abc import Sequence

from reproduction.report.floor import SIGN


def document(title: str, *parts: str) -> str:
    """A Markdown document: a heading, and paragraphs or tables (`pipes`)."""
    return "\n\n".join([f"# {title}", *parts]) + "\n"


def pipes(headings: list[str], rows: list[list[str]], *, left: int = 2, labels: int | None = None) -> str:
    """A Markdown table whose columns after the first ``left`` stand to the right.

    The cells of the first ``labels`` columns, where it is None of those on the left, become `literal`; others are
    Markdown.
    """
    labels = left if labels is None else labels
    body = [[literal(cell) for cell in row[:labels]] + [_in_a_cell(cell) for cell in row[labels:]] for row in rows]
    lines = [map(_in_a_cell, headings), ["---"] * left + ["---:"] * (len(headings) - left), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _in_a_cell(markdown: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", markdown)


MARKUP = re.compile(
    r"""[\\`*\[\]|$~]           # code, emphasis, links and images, cells, mathematics
    | (?<!\w)_ | _(?!\w)       # emphasis: within a word an underscore is one
    | <(?=[A-Za-z/!?])         # HTML and links
    | &(?=\#?\w+;)             # a character's name
    | ^[\#>+=-]                # a heading, a quotation, a list""",
    re.VERBOSE,
)


def literal(words: str) -> str:
    """Markdown in which words of a user's, such as a model's label, read as they are, on one line."""
    return MARKUP.sub(r"\\\g<0>", " ".join(words.split()))


def booktabs(headings: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, label: str) -> str:
    """A LaTeX ``table`` whose columns after the first stand to the right; the package it needs is in its first line."""
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


def escape(words: str) -> str:
    """Plain text for LaTeX: its special characters escaped, and the few others that we write spelled in its way."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
        "<": "$<$", ">": "$>$", "†": "$^\\dagger$", "—": "---", "±": "$\\pm$", SIGN: "$^\\circ$",
    }  # fmt: skip
    return words.translate(str.maketrans(special))
