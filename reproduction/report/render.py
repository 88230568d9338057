"""Formats a `Table` as Markdown, CSV and LaTeX, and for a terminal. All decisions are made elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rich.box
import rich.table
from rich.console import Console
from rich.text import Text

from reproduction.records import write_text
from reproduction.report import text
from reproduction.report.documents import escape, pipes, write_csv
from reproduction.report.floor import SIGN
from reproduction.report.grid import PAPER, UNTUNED, Column, PaperValue
from reproduction.report.intervals import CONFIDENCE
from reproduction.report.measures import PERCENT
from reproduction.report.ordering import MISSING, NOISE, PAPER_TIE, PARAMS, Ordering
from reproduction.report.significance import Comparison, p_text
from reproduction.report.sweeps import write_sweep
from reproduction.report.tables import EMPTY, Entry, Row, Table

NAMES_WIDTH, COLUMN_WIDTH = 34, 19
"""Widths on a terminal, in characters, of the names of rows and of each further column."""


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write ``<table>.md``, ``.csv``, ``.tex`` and ``<table>_orderings.csv`` into ``folder``; returns their paths.

    A sweep also has the files of `write_sweep`. If known answers were scored, ``<table>_known.csv`` has their scores.
    """
    folder, name = Path(folder), table.grid.table
    paths = [folder / f"{name}{ending}" for ending in (".md", ".csv", ".tex", "_orderings.csv")]
    write_text(paths[0], markdown(table))
    write_csv(paths[1], *wide(table))
    write_text(paths[2], latex(table))
    columns = ("base", "column", "ahead", "behind", "verdict", "leaning")
    write_csv(paths[3], columns, [vars(each) for each in table.orderings])
    paths += write_sweep(table.filled, folder)
    controls = {cell.column.id: cell for cell in table.filled.cells.values() if cell.controls}
    known = [
        {"column": column, "answers": answers, "value": cell.measure.written(value)}
        for column, cell in controls.items()
        for answers, value in cell.controls.items()
    ]
    if known:
        paths.append(folder / f"{name}_known.csv")
        write_csv(paths[-1], tuple(known[0]), known)
    return paths


def _parts(entry: Entry) -> tuple[str, str, str, str]:
    """Return value, marks (†, standard deviation over seeds), interval, and its sign if it reaches chance or zero."""
    value, low, high, spread = (
        "" if number is None else f"{number:.{entry.digits}f}"
        for number in (entry.value, entry.low, entry.high, entry.spread)
    )
    marks = "†" * entry.dagger + (f" ± {spread}" if spread else "")
    return value, marks, f"[{low}, {high}]", SIGN if entry.floor else ""


def _beside(entry: Entry) -> list[str]:
    """Return the paper's value with the difference, and the committed reference's, if present."""
    found = []
    if entry.paper is not None:
        difference = entry.value - entry.paper.value
        found.append(f"paper {_paper_number(entry.paper, params=False)}, {difference:+.1f}")
    if entry.reference is not None:
        found.append(f"ref {entry.reference}")
    return found


def _paper_number(number: PaperValue | None, *, params: bool) -> str:
    """Format with the paper's digits: two for a share of the parameters, one for a score."""
    if number is None:
        return EMPTY
    if params:
        return f"{number.value:.2f}" if number.value < 100 else "100"
    return f"{number.value:.1f}{'†' if number.dagger else ''}"


def _row_figures(row: Row, table: Table) -> tuple[str, str]:
    """Return the number of trained parameters, and their share, without frozen copies in parentheses."""
    trained = " / ".join(f"{int(part):,}" if part.isdigit() else part for part in row.trainable.split(" / "))
    plain = f" ({row.params_plain})" if row.params_plain != row.params else ""
    paper = table.at_paper_scale and row.paper_params
    return trained, f"{row.params}{plain}" + (f"; paper {_paper_number(paper, params=True)}" if paper else "")


def markdown(table: Table) -> str:
    """Return the report of a table: values, notes, differences, the paper's block, orderings, missing cells."""
    parts = [f"# {table.grid.title}", text.caption(table)]
    for measure, columns in table.groups.items():
        parts += [*([] if measure is PERCENT else [f"## {text.group_title(measure)}"]), _values(table, columns)]
    parts.append("\n".join(f"- {note}" for note in text.notes(table)))
    if table.beside:
        parts += ["## The committed reference", table.beside]
    parts += [f"## Differences from {text.reference_name(table)}", *_differences(table)]
    if spreads := _spreads(table):
        parts += ["## What a column can tell apart", text.SPREAD, spreads]
    if table.grid.paper and not table.at_paper_scale:
        sources = sorted({number.source for number in table.grid.paper.values()})
        parts += ["## The paper's numbers", text.paper_block(sources), _paper(table)]
    if table.orderings:
        parts += [text.ordering_title(table), text.ordering_counts(table), _orderings(table), text.ORDERINGS]
    if table.missing:
        parts += ["## Missing", "\n".join(f"- {line}" for line in text.missing_lines(table))]
    return "\n\n".join(parts) + "\n"


def _values(table: Table, columns: list[Column]) -> str:
    headings = ["Model", "Method", "# trained", "# params (%)"]
    rows = []
    for row in table.rows:
        values = [_markdown_entry(row.entries[column.id]) for column in columns]
        rows.append([row.base_label, row.label, *_row_figures(row, table), *values])
    return pipes([*headings, *(column.heading_at(table.scale) for column in columns)], rows)


def _markdown_entry(entry: Entry | None) -> str:
    if entry is None:
        return EMPTY
    value, marks, brackets, sign = _parts(entry)
    return "; ".join([f"{f'**{value}**' if entry.best else value}{marks} {brackets}{sign}", *_beside(entry)])


def _differences(table: Table) -> Iterator[str]:
    """Yield for each measure every method minus its reference, the interval, and p raw."""
    found = {(each.base, each.method, each.column): each for each in table.comparisons}
    several = "over seeds and items, then p with the item and (s) with the seed as unit"
    unit = several if len(table.grid.seeds) > 1 else "over items, then p"
    for measure, columns in table.groups.items():
        points = measure.points[:1].upper() + measure.points[1:]
        yield f"{points} with their {CONFIDENCE:.0%} interval {unit}, two-sided and raw."
        rows = [
            [row.base_label, row.label, *(_difference(found.get((row.base, row.method, c.id))) for c in columns)]
            for row in table.rows
            if table.grid.reference_of(row.method) is not None
        ]
        yield pipes(["Model", "Method", *(column.id for column in columns)], rows)


def _difference(each: Comparison | None) -> str:
    if each is None:
        return EMPTY
    values = (each.difference, *(each.seeds_ci or (each.ci_low, each.ci_high)))
    difference, low, high = (each.measure.text(value, signed=True) for value in values)
    of_seeds = f", (s) {p_text(each.seeds_p)}" if each.seeds_p is not None else ""
    return f"{difference} [{low}, {high}], p {p_text(each.wilcoxon_p)}{of_seeds}"


def _spreads(table: Table) -> str:
    """Compare the spread between seeds of a method (root of the mean variance) with that between methods' means, by
    column with at least two trained methods of several seeds each; "" without such a column.
    """
    rows, filled = [], table.filled
    methods = [method for method in table.grid.methods if method != UNTUNED]
    for base, label in filled.base_labels.items():
        for column in table.columns:
            cells = [filled.cells[key] for method in methods if (key := (base, method, column.id)) in filled.cells]
            if len(cells) > 1 and all(cell.seeds > 1 for cell in cells):
                seeds = float(np.sqrt(np.mean([cell.spread**2 for cell in cells])))
                between = float(np.std([cell.mean for cell in cells], ddof=1))
                values = column.measure.text(seeds), column.measure.text(between)
                ratio = f"{between / seeds:.1f}" if seeds else EMPTY
                rows.append([label, column.id, column.measure.points, *values, ratio])
    headings = ["Model", "column", "unit", "between seeds", "between methods", "ratio"]
    return pipes(headings, rows, left=3) if rows else ""


def _paper(table: Table) -> str:
    grid, rows = table.grid, []
    printed = {column for _, _, column in grid.paper}
    headings = {PARAMS: "# params (%)"} if PARAMS in printed else {}
    headings |= {column.id: column.heading[PAPER] for column in table.columns if column.id in printed}
    for base, words in grid.bases.items():
        for method in grid.methods if PAPER in words["label"] else ():  # a block without it repeats another's numbers
            numbers = {column: grid.paper.get((base, method, column)) for column in headings}
            if any(numbers.values()):
                values = [_paper_number(number, params=column == PARAMS) for column, number in numbers.items()]
                rows.append([words["label"][PAPER], grid.label(method, PAPER), *values])
    return pipes(["Model", "Method", *headings.values()], rows)


def _orderings(table: Table) -> str:
    grid = table.grid
    found = {(each.base, each.column, frozenset((each.ahead, each.behind))): each for each in table.orderings}
    headings = {PARAMS: "# params"} | {column.id: column.id for column in table.columns if not column.beside}
    headings = {name: label for name, label in headings.items() if any(each.column == name for each in table.orderings)}
    rows = []
    for base in grid.bases:
        for subject, method in grid.pairs():
            of_row = [found.get((base, name, frozenset((subject, method)))) for name in headings]
            if any(of_row):
                names = " vs ".join(grid.label(each, table.scale) for each in (subject, method))
                rows.append([table.filled.base_labels[base], names, *(_ordering(each, subject) for each in of_row)])
    return pipes(["Model", "Pair", *headings.values()], rows)


def _ordering(each: Ordering | None, subject: str) -> str:
    if each is None or each.verdict == MISSING:
        return EMPTY
    if each.verdict == PAPER_TIE:
        return "paper: tie"
    direction = "ahead" if each.ahead == subject else "behind"
    leaning = {1: " (+)", -1: " (-)", 0: ""}[each.leaning] if each.verdict == NOISE else ""
    return f"paper: {direction}; {each.verdict}{leaning}"


def wide(table: Table) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the CSV's columns and a row per method: value, spread, interval, marks; the paper's value at its scale."""
    parts = ["", "_spread", "_ci_low", "_ci_high", "_floor", "_best", "_dagger"]
    if table.at_paper_scale:
        parts += ["_paper", "_difference"]
    columns = ["base", "base_label", "method", "method_label", "seeds"]
    columns += ["parameters_trainable", "params_pct_paper", "params_pct_plain"]
    names, rows = len(columns), []
    columns += [f"{column.id}{part}" for column in table.columns for part in parts]
    for row in table.rows:
        seeds = {len(table.grid.seeds_of(row.base, row.method, column.benchmark)) for column in table.columns}
        facts = (row.base, row.base_label, row.method, row.label, seeds.pop() if len(seeds) == 1 else "")
        line = dict(zip(columns[:names], (*facts, row.trainable, row.params, row.params_plain), strict=True))
        for column in table.columns:
            entry = row.entries[column.id]
            if entry is None:
                line[column.id] = EMPTY
                continue
            numbers = (entry.value, entry.spread, entry.low, entry.high)
            values = ["" if number is None else f"{number:.{entry.digits}f}" for number in numbers]
            values += [entry.floor, "yes" if entry.best else "", "yes" if entry.dagger else ""]
            if table.at_paper_scale:
                paper = entry.paper
                values += [f"{paper.value:.1f}", f"{entry.value - paper.value:+.1f}"] if paper else ["", ""]
            line |= {f"{column.id}{part}": value for part, value in zip(parts, values, strict=True)}
        rows.append(line)
    return columns, rows


def latex(table: Table) -> str:
    """Return a ``table*`` with booktabs rules; its first line names the required packages."""
    grid = table.grid
    lines = ["% needs \\usepackage{array,booktabs}", "\\begin{table*}"]
    lines += ["  \\centering\\scriptsize\\setlength{\\tabcolsep}{3pt}"]
    for columns in table.groups.values():
        headings = ["Method", "# trained", "# params (%)", *(column.heading_at(table.scale) for column in columns)]
        lines += [
            f"  \\begin{{tabular}}{{lrr*{{{len(columns)}}}{{>{{\\raggedleft\\arraybackslash}}p{{2.1cm}}}}}}",
            "    \\toprule",
            "    " + " & ".join(map(escape, headings)) + " \\\\",
        ]
        for base, name in table.filled.base_labels.items():
            span = f"\\multicolumn{{{len(columns) + 3}}}{{l}}{{\\textit{{{escape(name)}}}}}"
            lines += ["    \\midrule", f"    {span} \\\\"]
            for row in (row for row in table.rows if row.base == base):
                cells = [*map(escape, (row.label, *_row_figures(row, table)))]
                cells += [_latex_entry(row.entries[column.id]) for column in columns]
                lines.append("    " + " & ".join(cells) + " \\\\")
        lines += ["    \\bottomrule", "  \\end{tabular}", "  \\par\\medskip"]
    lines += [f"  \\caption{{{escape(' '.join([f'{grid.title}.', text.caption(table), *text.notes(table)]))}}}"]
    lines += [f"  \\label{{tab:{grid.table}-{table.scale}}}", "\\end{table*}"]
    return "\n".join(lines) + "\n"


def _latex_entry(entry: Entry | None) -> str:
    if entry is None:
        return "---"
    value, marks, brackets, sign = _parts(entry)
    paper = "".join(f"; {words}" for words in _beside(entry) if entry.paper is not None and words.startswith("paper"))
    value = f"\\textbf{{{value}}}" if entry.best else value
    return f"{value}{escape(marks)} {{\\tiny {brackets}}}{escape(sign + paper)}"


def print_table(table: Table, console: Console) -> None:
    """Print the table in blocks of columns that fit the terminal's width, its notes and the missing cells."""
    fit = max(1, (console.width - NAMES_WIDTH) // COLUMN_WIDTH)
    console.print(Text(table.grid.title, style="bold"))
    for measure, columns in table.groups.items():
        if measure is not PERCENT:
            console.print(Text(text.group_title(measure), style="bold"))
        for start in range(0, len(columns), fit):
            console.print(_terminal_block(table, columns[start : start + fit]))
    below = [text.caption(table), *text.notes(table), *filter(None, [table.beside, text.ordering_counts(table)])]
    if table.missing:
        below += ["Missing:", *text.missing_lines(table)]
    console.print(*map(Text, below), sep="\n")


def _terminal_block(table: Table, columns: list[Column]) -> rich.table.Table:
    block = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1))
    block.add_column("Method", no_wrap=True)
    block.add_column("# trained\n# params (%)", justify="right", max_width=14)
    for column in columns:
        block.add_column(column.heading_at(table.scale), justify="right", width=COLUMN_WIDTH - 2)
    for base, label in table.filled.base_labels.items():
        block.add_row(Text(label, style="italic"))
        for row in (row for row in table.rows if row.base == base):
            entries = [_terminal_entry(row.entries[column.id]) for column in columns]
            block.add_row(Text(f"  {row.label}"), "\n".join(_row_figures(row, table)), *entries)
        block.add_section()
    return block


def _terminal_entry(entry: Entry | None) -> Text:
    if entry is None:
        return Text(EMPTY)
    value, marks, brackets, sign = _parts(entry)
    below = "\n".join([f"{brackets}{sign}", *_beside(entry)])
    return Text(value, style="bold" if entry.best else "").append(f"{marks}\n{below}", "dim")
