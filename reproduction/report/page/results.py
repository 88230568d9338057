"""A table of results as a section: ours with intervals, the paper's numbers in a block apart, the figure, the tests."""

from collections.abc import Mapping

from reproduction.report.figures import FIGURES, Absent, Rows, Sources, number
from reproduction.report.floor import SIGN
from reproduction.report.grid import PAPER, Column, Grid, PaperValue
from reproduction.report.measures import PERCENT, Measure, measure_of
from reproduction.report.ordering import PARAMS, VERDICTS
from reproduction.report.page.blocks import (
    Beside,
    DataTable,
    Details,
    Method,
    Prose,
    ResultRow,
    ResultTable,
    Section,
    Value,
)
from reproduction.report.page.parts import attempt, folded, plain_table, plate, written_table
from reproduction.report.page.words import prose, sections, slug
from reproduction.report.reference import read_reference
from reproduction.report.standings import SWEEPS

TABLES = {
    "table1": ("table1",),
    "table2": ("table2",),
    "table3": ("table3",),
    "table7": ("figure4",),
    "table8": ("table8",),
    "table_controls": ("table_controls",),
    "table_longer": ("table_longer",),
}
"""The tables of results, and the figures that stand with each."""

CONTROLS = "table_controls"

PAPERS_BLOCK = "The paper's numbers"
"""The part of a table's Markdown that the page shows as a block of its own."""

REFERENCES_BLOCK = "The committed reference"
"""The part about values that the page does not show: they stand beside a user's own in Markdown."""

GAPS = "Missing"
"""The part that must not be folded away."""

TESTS = (
    "base_label", "method", "reference", "column", "benchmark", "metric", "measure", "items", "samples", "seeds",
    "difference", "over items", "over seeds and items", "rank_biserial", "nonzero", "wins", "losses", "wilcoxon_p",
    "seeds_p", "holm_p", "mcnemar_p", "detectable_difference", "floor", "dagger", "note",
)  # fmt: skip
"""What the page shows of a table of tests; the file has the rest. The two intervals are put together here."""


def tables_of(sources: Sources) -> list[str]:
    """The tables that a page shows: all with cells at its scale, and of a reference those that it has."""
    shown = read_reference(sources.results, sources.scale).tables if sources.reference else TABLES
    return [table for table in TABLES if table in shown and sources.has(table)]


def result_section(sources: Sources, table: str) -> Section:
    """One table of the paper, or the controls. What is not there yet is named with the command that makes it."""
    grid = sources.grid(table)
    title, _, rest = grid.title.partition(": ")
    ours = attempt(lambda: _ours(sources, grid))
    blocks = [Beside(blocks=[*ours[:1], *_papers(grid)]), *ours[1:]]
    for figure in TABLES[table]:
        blocks += attempt(lambda figure=figure: [plate(sources, figure, FIGURES[figure](sources))])
    blocks += attempt(lambda: _words(sources, table))
    blocks += _pairs(sources, table)
    blocks += attempt(lambda: [Details(summary="Tests of significance, in full", blocks=[_tests(sources, grid)])])
    if table == CONTROLS:
        blocks += attempt(lambda: [_pivots(sources)])
    return Section(
        id=table,
        title=f"{title} and Figure 4" if "figure4" in TABLES[table] else title,
        lead=rest[:1].upper() + rest[1:] + ".",
        command=sources.make(table),
        blocks=blocks,
    )


def orderings_summary(sources: Sources) -> DataTable | None:
    """For each table how many pairs of methods stand here as in the paper; None where no table has been made."""
    rows = []
    for table in TABLES:
        path = sources.own / "tables" / f"{table}_orderings.csv"
        try:
            found = sources.rows(path, command=sources.make(table))
        except Absent:  # the table's own section says so
            continue
        counts = [sum(row["verdict"] == verdict for row in found) for verdict in VERDICTS]
        rows.append([sources.grid(table).title, str(len(found)), *map(str, counts)])
    if not rows:
        return None
    return DataTable(
        id="orderings",
        caption="Who is ahead, here and in the paper: pairs of methods × columns, by verdict",
        headings=["table", "pairs", *VERDICTS],
        rows=rows,
        numeric=frozenset(range(1, len(VERDICTS) + 2)),
        source=f"{sources.name(sources.own)}/tables/*_orderings.csv",
    )


def _ours(sources: Sources, grid: Grid) -> list[ResultTable]:
    """A table for each measure: scores, held-out losses."""
    rows = sources.table(grid.table)
    by_measure: dict[Measure, list[Column]] = {}
    for column in grid.columns_at(sources.scale):
        if column.id in rows[0]:
            by_measure.setdefault(column.measure, []).append(column)
    return [_of_measure(sources, grid, columns, rows=rows) for columns in by_measure.values()]


def _of_measure(sources: Sources, grid: Grid, columns: list[Column], *, rows: Rows) -> ResultTable:
    measure = columns[0].measure
    groups: dict[str, list[ResultRow]] = {}
    for row in rows:
        groups.setdefault(row["base_label"], []).append(
            ResultRow(
                method=Method(id=row["method"], label=row["method_label"]),
                facts=_facts(row),
                values=[_value(row, column) for column in columns],
            )
        )
    seeds = rows[0].get("seeds") or str(len(grid.seeds))
    better = ", lower is better" if measure.lower_is_better else ""
    return ResultTable(
        id=f"{grid.table}-{slug(measure.name)}",
        caption=f"Ours, scale “{sources.scale}”: {measure.name}, {measure.unit}{better}, 95 % interval below; "
        f"seeds: {seeds}",
        facts=["# trained", "# params (%)"] if "parameters_trainable" in rows[0] else ["# params (%)"],
        headings=[column.heading_at(sources.scale) for column in columns],
        groups=list(groups.items()),
        printed=False,
    )


def _facts(row: Mapping[str, str]) -> list[str]:
    share, plain = row["params_pct_paper"], row["params_pct_plain"]
    facts = [f"{share} ({plain})" if plain and plain != share else share]
    if "parameters_trainable" in row:
        counts = row["parameters_trainable"].split(" / ")
        facts.insert(0, " / ".join(f"{int(count):,}" if count.isdigit() else count for count in counts))
    return facts


def _value(row: Mapping[str, str], of: Column) -> Value | None:
    column = of.id
    if number(row, column) is None:
        return None
    paper, difference = row.get(f"{column}_paper"), row.get(f"{column}_difference")
    ends = [row.get(f"{column}_ci_{end}") for end in ("low", "high")]
    strip = of.measure is PERCENT
    return Value(
        text=row[column],
        spread=row.get(f"{column}_spread") or "",
        interval="–".join(ends) + SIGN * bool(row.get(f"{column}_floor")) if all(ends) else "",
        low=number(row, f"{column}_ci_low") if strip else None,
        high=number(row, f"{column}_ci_high") if strip else None,
        best=row.get(f"{column}_best") == "yes",
        dagger=row.get(f"{column}_dagger") == "yes",
        beside=f"paper {paper}, {difference}" if paper else "",
    )


def _papers(grid: Grid) -> list[ResultTable]:
    """The paper's numbers as a table of their own; none where the paper has no such table."""
    if not grid.paper:
        return []
    printed = {column for _, _, column in grid.paper}
    columns = [column for column in grid.columns if column.id in printed and PAPER in column.heading]
    groups = []
    for base, words in grid.bases.items():
        if PAPER not in words["label"]:  # a block like another's, that has them
            continue
        of_base = [method for method in grid.methods if any(key[:2] == (base, method) for key in grid.paper)]
        lines = [
            ResultRow(
                method=Method(id=method, label=grid.label(method, PAPER)),
                facts=[_share(grid.paper.get((base, method, PARAMS)))] if PARAMS in printed else [],
                values=[_printed(grid.paper.get((base, method, column.id))) for column in columns],
            )
            for method in of_base
        ]
        groups.append((words["label"][PAPER], lines))
    source = "; ".join(sorted({value.source for value in grid.paper.values()}))
    return [
        ResultTable(
            id=f"{grid.table}-paper",
            caption=f"{PAPERS_BLOCK}: other models, other tasks ({source})",
            facts=["# params (%)"] if PARAMS in printed else [],
            headings=[column.heading[PAPER] for column in columns],
            groups=groups,
            printed=True,
        )
    ]


def _share(printed: PaperValue | None) -> str:
    return "—" if printed is None else "100" if printed.value == 100 else f"{printed.value:.2f}"


def _printed(printed: PaperValue | None) -> Value | None:
    return printed and Value(text=f"{printed.value:.1f}", dagger=printed.dagger)


def _words(sources: Sources, table: str) -> list[object]:
    """The sentences and the smaller tables that the table's own report has, behind lines that open them."""
    path = sources.own / "tables" / f"{table}.md"
    head, parts = sections(sources.text(path, command=sources.make(table)))
    blocks: list[object] = []
    for title, body in [("How to read this table", head), *parts]:
        if title == GAPS:
            blocks.insert(0, Prose(html=prose(f"**{GAPS}.**\n\n{body}"), warns=True))
        elif title not in (PAPERS_BLOCK, REFERENCES_BLOCK):
            blocks.append(Details(summary=title, blocks=[Prose(html=prose(body, caption=title))]))
    return blocks


def _pairs(sources: Sources, table: str) -> list[object]:
    """Of a sweep, every method against every other one; nothing where these have no loss."""
    name = SWEEPS.get(table, table)
    if table not in SWEEPS or not (sources.own / "tables" / f"{name}.md").is_file():
        return []
    shown = written_table(sources, name, command=sources.make(table))
    return [Details(summary="Each method against each other, in the mean held-out loss", blocks=[shown])]


def _tests(sources: Sources, grid: Grid) -> DataTable:
    rows = sources.tests(grid.table)
    labels = {method: grid.label(method, sources.scale) for method in grid.methods}
    shown = []
    for row in rows:
        whole = row | {part: labels.get(row[part], row[part]) for part in ("method", "reference")}
        whole |= {"over items": _interval(row, "ci"), "over seeds and items": _interval(row, "seeds_ci")}
        shown.append({column: whole[column] for column in TESTS if column in whole})
    return plain_table(
        shown,
        id=f"{grid.table}-tests",
        caption=f"{grid.title}: each method minus its reference, in the measure's unit, with 95 % intervals",
        source=f"{sources.name(sources.own)}/significance/{grid.table}.csv",
    )


def _pivots(sources: Sources) -> object:
    rows = sources.rows(sources.pivots, command=sources.make("pivots"))
    caption = "What pivots the bases give, and what trained routers make of them"
    return folded(plain_table(rows, id="pivots", caption=caption, source=sources.name(sources.pivots)))


def _interval(row: Mapping[str, str], name: str) -> str:
    low, high = number(row, f"{name}_low"), number(row, f"{name}_high")
    digits = measure_of(row["metric"]).digits
    return "" if low is None or high is None else f"[{low:+.{digits}f}, {high:+.{digits}f}]"
