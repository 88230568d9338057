"""A `Table` as Markdown, CSV and LaTeX. Nothing is decided here, only spelled."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from reproduction.records import write_text
from reproduction.report import text
from reproduction.report.collect import write_csv
from reproduction.report.documents import escape, literal, pipes
from reproduction.report.floor import SIGN
from reproduction.report.grid import PAPER, Column, PaperValue
from reproduction.report.intervals import CONFIDENCE
from reproduction.report.measures import PERCENT
from reproduction.report.ordering import MISSING, NOISE, PAPER_TIE, PARAMS, Ordering
from reproduction.report.significance import Comparison, p_text
from reproduction.report.spread import Spread, spreads
from reproduction.report.sweeps import write_sweep
from reproduction.report.tables import EMPTY, Entry, Row, Table


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write ``<table>.md``, ``.csv``, ``.tex`` and ``<table>_orderings.csv`` into ``folder``; returns their paths.

    A sweep has the files of `write_sweep` too, and where known answers were scored beside the models',
    ``<table>_known.csv`` has what they score.
    """
    folder, name = Path(folder), table.grid.table
    write_text(folder / f"{name}.md", markdown(table))
    write_text(folder / f"{name}.tex", latex(table))
    write_csv(folder / f"{name}.csv", *wide(table))
    columns = ("base", "column", "ahead", "behind", "verdict", "leaning")
    write_csv(folder / f"{name}_orderings.csv", columns, [vars(each) for each in table.orderings])
    paths = [folder / f"{name}{ending}" for ending in (".md", ".csv", ".tex", "_orderings.csv")]
    paths += write_sweep(table.filled, folder)
    if known := _known(table):
        paths.append(folder / f"{name}_known.csv")
        write_csv(paths[-1], tuple(known[0]), known)
    return paths


def _known(table: Table) -> list[dict[str, Any]]:
    """What known answers to the same items score, in the columns that have such."""
    found = {cell.column.id: cell for cell in table.filled.cells.values() if cell.controls}
    return [
        {"column": column, "answers": answers, "value": cell.measure.written(value)}
        for column, cell in found.items()
        for answers, value in cell.controls.items()
    ]


def markdown(table: Table) -> str:
    """The whole report of a table: values, notes, differences, the paper's block, orderings, what is missing."""
    table = _literal(table)
    parts = [f"# {table.grid.title}", text.caption(table)]
    for measure, columns in table.groups.items():
        parts += [*([] if measure is PERCENT else [f"## {text.group_title(measure)}"]), _grid_markdown(table, columns)]
    parts.append("\n".join(f"- {note}" for note in text.notes(table)))
    if table.beside:
        parts += ["## The committed reference", table.beside]
    parts += [f"## Differences from {text.reference_name(table)}", _differences_markdown(table)]
    if found := spreads(table.filled):
        parts += ["## What a column can tell apart", text.SPREAD, _spread_markdown(table, found)]
    if table.grid.paper and not table.at_paper_scale:
        parts += ["## The paper's numbers", _paper_sentence(table), _paper_markdown(table)]
    if table.orderings:
        parts += [_ordering_title(table), text.ordering_counts(table), _orderings_markdown(table)]
        parts.append(text.ordering_legend())
    if table.missing:
        parts += ["## Missing", "\n".join(f"- {line}" for line in text.missing_lines(table))]
    return "\n\n".join(parts) + "\n"


def _literal(table: Table) -> Table:
    """The table with labels, and words of what is missing, as Markdown that reads as they are."""
    filled, grid = table.filled, table.grid
    labels = {
        method: literal(words) if isinstance(words, str) else {kind: literal(each) for kind, each in words.items()}
        for method, words in grid.labels.items()
    }
    named = replace(
        filled,
        grid=replace(grid, labels=labels),
        base_labels={base: literal(name) for base, name in filled.base_labels.items()},
        missing=[
            replace(each, experiment=literal(each.experiment), reason=literal(each.reason)) for each in filled.missing
        ],
    )
    rows = [replace(row, base_label=literal(row.base_label), label=literal(row.label)) for row in table.rows]
    return replace(table, filled=named, rows=rows)


def _grid_markdown(table: Table, columns: list[Column]) -> str:
    headings = ["Model", "Method", "# trained", "# params (%)", *(table.heading(column) for column in columns)]
    rows = []
    for row in table.rows:
        values = [_markdown_entry(row.entries[column.id]) for column in columns]
        rows.append([row.base_label, row.label, trained_text(row), params_text(row, table), *values])
    return pipes(headings, rows, labels=0)


def _markdown_entry(entry: Entry | None) -> str:
    if entry is None:
        return EMPTY
    value = f"**{shown(entry, entry.value)}**" if entry.best else shown(entry, entry.value)
    beside = beside_paper(entry, "; ") + beside_reference(entry, "; ")
    return f"{value}{dagger(entry)}{spread(entry)} {brackets(entry)}{floor(entry)}{beside}"


def _differences_markdown(table: Table) -> str:
    """Each method minus its reference, the interval, and p raw: the effect before the test. A part for each measure."""
    found = {(each.base, each.method, each.column): each for each in table.comparisons}
    several = "over seeds and items, then p with the item and (s) with the seed as unit"
    unit = several if len(table.grid.seeds) > 1 else "over items, then p"
    parts = []
    for measure, columns in table.groups.items():
        rows = []
        for row in table.rows:
            own = [found.get((row.base, row.method, column.id)) for column in columns]
            if table.grid.reference_of(row.method) is not None:
                rows.append([row.base_label, row.label, *map(_difference, own)])
        points = measure.points[:1].upper() + measure.points[1:]
        told = f"{points} with their {CONFIDENCE:.0%} interval {unit}, two-sided and raw."
        parts += [told, pipes(["Model", "Method", *(column.id for column in columns)], rows, labels=0)]
    return "\n\n".join(parts)


def _spread_markdown(table: Table, found: list[Spread]) -> str:
    rows = [
        [
            table.filled.base_labels[each.base],
            each.column.id,
            each.column.measure.points,
            each.column.measure.text(each.seeds),
            each.column.measure.text(each.methods),
            EMPTY if each.ratio is None else f"{each.ratio:.1f}",
        ]
        for each in found
    ]
    return pipes(["Model", "column", "unit", "between seeds", "between methods", "ratio"], rows, left=3, labels=0)


def _difference(each: Comparison | None) -> str:
    if each is None:
        return EMPTY
    values = (each.difference, *(each.seeds_ci or (each.ci_low, each.ci_high)))
    difference, low, high = (each.measure.text(value, signed=True) for value in values)
    of_seeds = f", (s) {p_text(each.seeds_p)}" if each.seeds_p is not None else ""
    return f"{difference} [{low}, {high}], p {p_text(each.wilcoxon_p)}{of_seeds}"


def shown(entry: Entry, number: float) -> str:
    """A number of an entry, with the digits of its measure."""
    return f"{number:.{entry.digits}f}"


def brackets(entry: Entry) -> str:
    """The interval."""
    return f"[{shown(entry, entry.low)}, {shown(entry, entry.high)}]"


def floor(entry: Entry) -> str:
    """The sign of an interval that reaches down to chance or zero, or nothing."""
    return SIGN if entry.floor else ""


def spread(entry: Entry) -> str:
    """The standard deviation over seeds, or nothing where there is one run."""
    return "" if entry.spread is None else f" ± {shown(entry, entry.spread)}"


def trained_text(row: Row) -> str:
    """The number of trained parameters, its thousands apart."""
    return " / ".join(f"{int(part):,}" if part.isdigit() else part for part in row.trainable.split(" / "))


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


def beside_reference(entry: Entry, separator: str) -> str:
    """What the committed reference prints there, where that is comparable."""
    return "" if entry.reference is None else f"{separator}ref {entry.reference}"


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
    printed = {column for _, _, column in grid.paper}
    headings = {PARAMS: "# params (%)"} if PARAMS in printed else {}
    headings |= {column.id: column.heading[PAPER] for column in table.columns if column.id in printed}
    for base, words in grid.bases.items():
        for method in grid.methods if PAPER in words["label"] else ():  # of a block like another's, that has them
            numbers = [grid.paper.get((base, method, column)) for column in headings]
            if any(numbers):
                shown = [
                    _paper_number(number, params=name == PARAMS) for name, number in zip(headings, numbers, strict=True)
                ]
                rows.append([words["label"][PAPER], grid.label(method, PAPER), *shown])
    return pipes(["Model", "Method", *headings.values()], rows, labels=0)


def _paper_number(number: PaperValue | None, *, params: bool) -> str:
    """With the digits that the paper prints: two for a share of the parameters, one for a score."""
    if number is None:
        return EMPTY
    if params:
        return f"{number.value:.2f}" if number.value < 100 else "100"
    return f"{number.value:.1f}{'†' if number.dagger else ''}"


def _ordering_title(table: Table) -> str:
    subject = table.grid.subject
    who = "each pair" if subject is None else f"{table.grid.label(subject, table.scale)} against each method"
    return f"## Orderings: {who}, the paper's and ours"


def _orderings_markdown(table: Table) -> str:
    grid = table.grid
    found = {(each.base, each.column, frozenset((each.ahead, each.behind))): each for each in table.orderings}
    headings = {PARAMS: "# params"} | {column.id: column.id for column in table.columns if not column.beside}
    headings = {name: said for name, said in headings.items() if any(each.column == name for each in table.orderings)}
    rows = []
    for base in grid.bases:
        for subject, method in grid.pairs():
            of_row = [found.get((base, name, frozenset((subject, method)))) for name in headings]
            if any(of_row):
                names = [grid.label(each, table.scale) for each in (subject, method)]
                shown = [_ordering(each, subject) for each in of_row]
                rows.append([table.filled.base_labels[base], f"{names[0]} vs {names[1]}", *shown])
    return pipes(["Model", "Pair", *headings.values()], rows, labels=0)


def _ordering(each: Ordering | None, subject: str) -> str:
    if each is None or each.verdict == MISSING:
        return EMPTY
    if each.verdict == PAPER_TIE:
        return "paper: tie"
    direction = "ahead" if each.ahead == subject else "behind"
    leaning = {1: " (+)", -1: " (-)", 0: ""}[each.leaning] if each.verdict == NOISE else ""
    return f"paper: {direction}; {each.verdict}{leaning}"


def wide(table: Table) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of the CSV, and a row per method: value, spread, interval, marks; the paper's value at its scale."""
    parts = ["", "_spread", "_ci_low", "_ci_high", "_floor", "_best", "_dagger"]
    if table.at_paper_scale:
        parts += ["_paper", "_difference"]
    columns = ["base", "base_label", "method", "method_label", "seeds"]
    columns += ["parameters_trainable", "params_pct_paper", "params_pct_plain"]
    columns += [f"{column.id}{part}" for column in table.columns for part in parts]
    rows = []
    for row in table.rows:
        own: dict[str, Any] = {
            "base": row.base,
            "base_label": row.base_label,
            "method": row.method,
            "method_label": row.label,
            "seeds": _seeds(table, row),
            "parameters_trainable": row.trainable,
            "params_pct_paper": row.params,
            "params_pct_plain": row.params_plain,
        }
        for column in table.columns:
            entry = row.entries[column.id]
            if entry is None:
                own[column.id] = EMPTY
                continue
            values = [shown(entry, entry.value), "" if entry.spread is None else shown(entry, entry.spread)]
            values += [shown(entry, entry.low), shown(entry, entry.high), entry.floor]
            values += ["yes" if entry.best else "", "yes" if entry.dagger else ""]
            if table.at_paper_scale:
                paper = entry.paper
                values += [f"{paper.value:.1f}", f"{entry.value - paper.value:+.1f}"] if paper else ["", ""]
            own |= dict(zip([f"{column.id}{part}" for part in parts], values, strict=True))
        rows.append(own)
    return columns, rows


def _seeds(table: Table, row: Row) -> int | str:
    """How many seeds a row has; empty where columns differ."""
    found = {len(table.grid.seeds_of(row.base, row.method, column.benchmark)) for column in table.columns}
    return found.pop() if len(found) == 1 else ""


def latex(table: Table) -> str:
    """A ``table*`` with booktabs rules; the packages that it needs stand in its first line."""
    grid = table.grid
    lines = ["% needs \\usepackage{array,booktabs}", "\\begin{table*}"]
    lines += ["  \\centering\\scriptsize\\setlength{\\tabcolsep}{3pt}"]
    for columns in table.groups.values():
        lines += _latex_group(table, columns)
    lines += [f"  \\caption{{{escape(' '.join([f'{grid.title}.', text.caption(table), *text.notes(table)]))}}}"]
    lines += [f"  \\label{{tab:{grid.table}-{table.scale}}}", "\\end{table*}"]
    return "\n".join(lines) + "\n"


def _latex_group(table: Table, columns: list[Column]) -> list[str]:
    lines = [
        f"  \\begin{{tabular}}{{lrr*{{{len(columns)}}}{{>{{\\raggedleft\\arraybackslash}}p{{2.1cm}}}}}}",
        "    \\toprule",
        "    " + _latex_line(["Method", "# trained", "# params (%)", *(table.heading(column) for column in columns)]),
    ]
    for base, name in table.filled.base_labels.items():
        lines += ["    \\midrule", f"    \\multicolumn{{{len(columns) + 3}}}{{l}}{{\\textit{{{escape(name)}}}}} \\\\"]
        for row in (row for row in table.rows if row.base == base):
            cells = [escape(row.label), escape(trained_text(row)), escape(params_text(row, table))]
            cells += [_latex_entry(row.entries[column.id]) for column in columns]
            lines.append("    " + " & ".join(cells) + " \\\\")
    return [*lines, "    \\bottomrule", "  \\end{tabular}", "  \\par\\medskip"]


def _latex_line(cells: list[str]) -> str:
    return " & ".join(map(escape, cells)) + " \\\\"


def _latex_entry(entry: Entry | None) -> str:
    if entry is None:
        return "---"
    value = f"\\textbf{{{shown(entry, entry.value)}}}" if entry.best else shown(entry, entry.value)
    marks = escape(dagger(entry) + spread(entry))
    return f"{value}{marks} {{\\tiny {brackets(entry)}}}{escape(floor(entry) + beside_paper(entry, '; '))}"
