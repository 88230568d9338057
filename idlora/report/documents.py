"""Small tables of text as Markdown and LaTeX documents, for what needs no cells of a grid."""

from collections.abc import Sequence

from idlora.report.floor import SIGN


def document(title: str, *parts: str) -> str:
    """A Markdown document: a heading, and paragraphs or tables (`pipes`)."""
    return "\n\n".join([f"# {title}", *parts]) + "\n"


def pipes(headings: list[str], rows: list[list[str]], *, left: int = 2) -> str:
    """A Markdown table whose columns after the first ``left`` stand to the right."""
    lines = [headings, ["---"] * left + ["---:"] * (len(headings) - left), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


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
