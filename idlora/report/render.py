"""A `Table` as Markdown, CSV and LaTeX. Nothing is decided here, only spelled."""

from pathlib import Path
from typing import Any

from idlora.records import write_text
from idlora.report import text
from idlora.report.collect import write_csv
from idlora.report.grid import PAPER, PaperValue
from idlora.report.ordering import MISSING, NOISE, PAPER_TIE, PARAMS, Ordering
from idlora.report.tables import Entry, Row, Table


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write ``<table>.md``, ``.csv``, ``.tex`` and ``<table>_orderings.csv`` into ``folder``; returns their paths."""
    folder, name = Path(folder), table.grid.table
    write_text(folder / f"{name}.md", markdown(table))
    write_text(folder / f"{name}.tex", latex(table))
    write_csv(folder / f"{name}.csv", *_wide(table))
    columns = ("base", "column", "ahead", "behind", "verdict", "leaning")
    write_csv(folder / f"{name}_orderings.csv", columns, [vars(each) for each in table.orderings])
    return [folder / f"{name}{ending}" for ending in (".md", ".csv", ".tex", "_orderings.csv")]


def markdown(table: Table) -> str:
    """The whole report of a table: caption, values, notes, the paper's block, orderings, and what is missing."""
    parts = [f"# {table.grid.title}", text.caption(table), _grid_markdown(table)]
    parts.append("\n".join(f"- {note}" for note in text.notes(table)))
    if not table.at_paper_scale:
        parts += ["## The paper's numbers", _paper_sentence(table), _paper_markdown(table)]
    parts += [_ordering_title(table), text.ordering_counts(table.orderings), _orderings_markdown(table)]
    parts.append(text.ordering_legend())
    if table.missing:
        parts += ["## Missing", "\n".join(f"- {line}" for line in text.missing_lines(table))]
    return "\n\n".join(parts) + "\n"


def _grid_markdown(table: Table) -> str:
    headings = ["Model", "Method", "# params (%)", *(table.heading(column) for column in table.columns)]
    rows = []
    for row in table.rows:
        values = [_markdown_entry(row.entries[column.id], table) for column in table.columns]
        rows.append([row.base_label, row.label, params_text(row, table), *values])
    return _pipes(headings, rows)


def _markdown_entry(entry: Entry | None, table: Table) -> str:
    if entry is None:
        return text.EMPTY
    value = f"**{entry.value:.1f}**" if entry.best else f"{entry.value:.1f}"
    return f"{value}{dagger(entry)} [{entry.low:.1f}, {entry.high:.1f}]" + beside_paper(entry, "; ")


def params_text(row: Row, table: Table) -> str:
    """The share of trainable parameters, without frozen copies in parentheses, the paper's at its own scale."""
    plain = f" ({row.params_plain})" if row.params_plain != row.params else ""
    paper = (
        f"; paper {_paper_number(row.paper_params, params=True)}" if table.at_paper_scale and row.paper_params else ""
    )
    return f"{row.params}{plain}{paper}"


def beside_paper(entry: Entry, separator: str) -> str:
    """The paper's value and the difference, where there is one to be set beside ours."""
    if entry.paper is None:
        return ""
    return f"{separator}paper {_paper_number(entry.paper, params=False)}, {entry.value - entry.paper.value:+.1f}"


def dagger(entry: Entry) -> str:
    """The mark, or nothing."""
    return "†" if entry.dagger else ""


def _paper_sentence(table: Table) -> str:
    sources = sorted({number.source for number in table.grid.paper.values()})
    return (
        f"From {'; '.join(sources)}. Other models, other tasks: only the order of the methods is compared, "
        "below. † as the paper prints it."
    )


def _paper_markdown(table: Table) -> str:
    grid, rows = table.grid, []
    columns = [PARAMS, *(column.id for column in table.columns if not column.beside)]
    headings = ["# params (%)", *(column.heading[PAPER] for column in table.columns if not column.beside)]
    for base, words in grid.bases.items():
        for method in grid.methods:
            numbers = [grid.paper.get((base, method, column)) for column in columns]
            if any(numbers):
                shown = [_paper_number(number, params=index == 0) for index, number in enumerate(numbers)]
                rows.append([words["label"][PAPER], grid.labels[method], *shown])
    return _pipes(["Model", "Method", *headings], rows)


def _paper_number(number: PaperValue | None, *, params: bool) -> str:
    """With the digits that the paper prints: two for a share of the parameters, one for a score."""
    if number is None:
        return text.EMPTY
    if params:
        return f"{number.value:.2f}" if number.value < 100 else "100"
    return f"{number.value:.1f}{'†' if number.dagger else ''}"


def _ordering_title(table: Table) -> str:
    return f"## Orderings: {table.grid.labels[table.grid.subject]} against each method, the paper's and ours"


def _orderings_markdown(table: Table) -> str:
    grid = table.grid
    columns = [column for column in table.columns if not column.beside]
    found = {(each.base, each.column, frozenset((each.ahead, each.behind))): each for each in table.orderings}
    rows = []
    for base in grid.bases:
        for method in grid.methods:
            of_row = [found.get((base, name, frozenset((grid.subject, method)))) for name in _names(columns)]
            if method != grid.subject and any(of_row):
                shown = [_ordering(each, grid.subject) for each in of_row]
                rows.append([table.filled.base_labels[base], f"vs {grid.labels[method]}", *shown])
    headings = ["# params", *(column.id for column in columns)]
    return _pipes(["Model", grid.labels[grid.subject], *headings], rows)


def _names(columns: list[Any]) -> list[str]:
    return [PARAMS, *(column.id for column in columns)]


def _ordering(each: Ordering | None, subject: str) -> str:
    if each is None or each.verdict == MISSING:
        return text.EMPTY
    if each.verdict == PAPER_TIE:
        return "paper: tie"
    direction = "ahead" if each.ahead == subject else "behind"
    leaning = {1: " (+)", -1: " (-)", 0: ""}[each.leaning] if each.verdict == NOISE else ""
    return f"paper: {direction}; {each.verdict}{leaning}"


def _pipes(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---", "---", *["---:"] * (len(headings) - 2)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _wide(table: Table) -> tuple[list[str], list[dict[str, Any]]]:
    """One CSV row per method: value, interval, marks, and at the paper's scale its value and the difference."""
    parts = ["", "_ci_low", "_ci_high", "_best", "_dagger"]
    if table.at_paper_scale:
        parts += ["_paper", "_difference"]
    columns = ["base", "base_label", "method", "method_label", "params_pct_paper", "params_pct_plain"]
    columns += [f"{column.id}{part}" for column in table.columns for part in parts]
    rows = []
    for row in table.rows:
        own: dict[str, Any] = {
            "base": row.base,
            "base_label": row.base_label,
            "method": row.method,
            "method_label": row.label,
            "params_pct_paper": row.params,
            "params_pct_plain": row.params_plain,
        }
        for column in table.columns:
            entry = row.entries[column.id]
            if entry is None:
                own[column.id] = text.EMPTY
                continue
            values = [f"{entry.value:.1f}", f"{entry.low:.1f}", f"{entry.high:.1f}"]
            values += ["yes" if entry.best else "", "yes" if entry.dagger else ""]
            if table.at_paper_scale:
                paper = entry.paper
                values += [f"{paper.value:.1f}", f"{entry.value - paper.value:+.1f}"] if paper else ["", ""]
            own |= dict(zip([f"{column.id}{part}" for part in parts], values, strict=True))
        rows.append(own)
    return columns, rows


def latex(table: Table) -> str:
    """A ``table*`` with booktabs rules; the packages that it needs stand in its first line."""
    grid, columns = table.grid, table.columns
    width = len(columns) + 2
    lines = [
        "% needs \\usepackage{array,booktabs}",
        "\\begin{table*}",
        "  \\centering\\scriptsize\\setlength{\\tabcolsep}{3pt}",
        f"  \\begin{{tabular}}{{lr*{{{len(columns)}}}{{>{{\\raggedleft\\arraybackslash}}p{{2.1cm}}}}}}",
        "    \\toprule",
        "    " + _latex_line(["Method", "# params (%)", *(table.heading(column) for column in columns)]),
    ]
    for base, name in table.filled.base_labels.items():
        lines += ["    \\midrule", f"    \\multicolumn{{{width}}}{{l}}{{\\textit{{{escape(name)}}}}} \\\\"]
        for row in (row for row in table.rows if row.base == base):
            cells = [escape(row.label), escape(params_text(row, table))]
            cells += [_latex_entry(row.entries[column.id]) for column in columns]
            lines.append("    " + " & ".join(cells) + " \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}"]
    lines += [f"  \\caption{{{escape(' '.join([f'{grid.title}.', text.caption(table), *text.notes(table)]))}}}"]
    lines += [f"  \\label{{tab:{grid.table}-{table.scale}}}", "\\end{table*}"]
    return "\n".join(lines) + "\n"


def escape(words: str) -> str:
    """Plain text for LaTeX: its special characters escaped, and the few others that we write spelled in its way."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
        "<": "$<$", ">": "$>$", "†": "$^\\dagger$", "—": "---",
    }  # fmt: skip
    return words.translate(str.maketrans(special))


def _latex_line(cells: list[str]) -> str:
    return " & ".join(map(escape, cells)) + " \\\\"


def _latex_entry(entry: Entry | None) -> str:
    if entry is None:
        return "---"
    value = f"\\textbf{{{entry.value:.1f}}}" if entry.best else f"{entry.value:.1f}"
    spread = f"{{\\tiny [{entry.low:.1f}, {entry.high:.1f}]}}"
    return f"{value}{escape(dagger(entry))} {spread}{escape(beside_paper(entry, '; '))}"
