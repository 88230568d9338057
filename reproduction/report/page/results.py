"""Tables of results: our values with intervals, the paper's numbers in their own block, figure and tests."""

from collections import Counter
from collections.abc import Mapping, Sequence

from reproduction.report.figures import Absent, Rows, Sources, number
from reproduction.report.floor import SIGN
from reproduction.report.grid import EMBEDDED, PAPER, Column, Grid, PaperValue, kind_of
from reproduction.report.measures import PERCENT, Measure, measure_of
from reproduction.report.ordering import NOISE, OPPOSITE, PARAMS, SAME, VERDICTS
from reproduction.report.page.blocks import (
    Block,
    answer,
    attempt,
    data_table,
    details,
    figure,
    words,
    written_table,
)
from reproduction.report.page.markdown import sections, slug
from reproduction.report.reference import read_reference
from reproduction.report.standings import SWEEPS

CONTROLS = "table_controls"
TABLES = {
    "table1": "table1",
    "table2": "table2",
    "table3": "table3",
    "table7": "figure4",
    "table8": "table8",
    CONTROLS: CONTROLS,
    "table_longer": "table_longer",
}
"""Tables of results → the figure in their section."""

PAPERS_BLOCK, REFERENCES_BLOCK, GAPS = "The paper's numbers", "The committed reference", "Missing"
"""Parts of a table's Markdown: shown in its own block, not shown, never folded."""

TESTS = (
    "base_label", "method", "reference", "column", "benchmark", "metric", "measure", "items", "samples", "seeds",
    "difference", "over items", "over seeds and items", "rank_biserial", "nonzero", "wins", "losses", "wilcoxon_p",
    "seeds_p", "holm_p", "mcnemar_p", "detectable_difference", "floor", "dagger", "note",
)  # fmt: skip
"""Columns shown of a table of tests; the file has the rest. The two intervals are built here."""


def tables_of(sources: Sources) -> list[str]:
    """Return the tables of a page: all with cells at its scale; for a reference, only existing ones."""
    shown = read_reference(sources.results, sources.scale).tables if sources.reference else TABLES
    return [table for table in TABLES if table in shown and sources.has(table)]


def table_blocks(sources: Sources, table: str) -> list[Block]:
    """Return one table, folded with its figure, words and tests; what is missing of it comes first and is not."""
    grid, drawn = sources.grid(table), TABLES[table]
    blocks = attempt(
        lambda: _ours(sources, grid),
        lambda: figure(sources, drawn),
        lambda: _words(sources, table),
        lambda: _pairs(sources, table),
        lambda: details("Tests of significance, in full", _tests(sources, grid)),
        lambda: _pivots(sources) if table == CONTROLS else [],
    )
    missing = [block for block in blocks if block["kind"] == "missing" or block.get("warns")]
    tables = [block for block in blocks if block["kind"] == "result_table"]
    rest = [block for block in blocks if block not in [*missing, *tables]]
    beside = {"kind": "beside", "blocks": [*tables, *_papers(grid)]}
    return [*missing, details(grid.title, beside, *rest)]


def figure_with_table(sources: Sources, name: str) -> list[Block]:
    """Return a figure and its table, folded together; empty if there is nothing to draw."""
    try:
        drawn = figure(sources, name)
    except Absent:
        return []
    table = attempt(lambda: written_table(sources, name, command=sources.make(f"figure_{name}")))
    return [details(drawn["title"], drawn, *table)]


def orderings(sources: Sources) -> list[Block]:
    """Return how many pairs of methods are ordered like the paper's, in words and for each table. Raises `Absent`."""
    rows, total = [], Counter()
    for table in TABLES:
        path = sources.own / "tables" / f"{table}_orderings.csv"
        try:
            found = Counter(row["verdict"] for row in sources.rows(path, command=sources.make(table)))
        except Absent:  # the table itself reports it
            continue
        rows.append([sources.grid(table).title, str(found.total()), *(str(found[verdict]) for verdict in VERDICTS)])
        total += found
    if not rows:
        raise Absent(f"{sources.name(sources.own)}/tables/*_orderings.csv", sources.make("tables"))
    limits = (
        "It shows that every method trains, saves, loads and is scored, and is no evidence about the paper. "
        if kind_of(sources.scale) == EMBEDDED
        else ""
    )
    words = (
        f"{limits}Of {total.total():,} pairs of methods and columns that the paper orders, {total[SAME]} come out the "
        f"same way here, {total[OPPOSITE]} the other way, and {total[NOISE]} within noise."
    )
    caption = "Who is ahead, here and in the paper: pairs of methods × columns, by verdict"
    table = {"kind": "data_table", "id": "orderings", "caption": caption, "rows": rows}
    table |= {"headings": ["table", "pairs", *VERDICTS], "numeric": range(1, len(VERDICTS) + 2)}
    return [answer(words), details(caption, table | {"source": f"{sources.name(sources.own)}/tables/*_orderings.csv"})]


def _ours(sources: Sources, grid: Grid) -> list[Block]:
    """Return a table for each measure: scores, held-out losses."""
    rows = sources.table(grid.table)
    by_measure: dict[Measure, list[Column]] = {}
    for column in grid.columns_at(sources.scale):
        if column.id in rows[0]:
            by_measure.setdefault(column.measure, []).append(column)
    return [_of_measure(sources, grid, columns, rows=rows) for columns in by_measure.values()]


def _of_measure(sources: Sources, grid: Grid, columns: Sequence[Column], *, rows: Rows) -> Block:
    measure = columns[0].measure
    groups: dict[str, list[Block]] = {}
    for row in rows:
        cells = [_value(row, column) for column in columns]
        named = {"method": row["method"], "label": row["method_label"], "facts": _facts(row)}
        groups.setdefault(row["base_label"], []).append(named | {"cells": cells})
    seeds = rows[0].get("seeds") or len(grid.seeds)
    better = ", lower is better" if measure.lower_is_better else ""
    return {
        "kind": "result_table",
        "id": f"{grid.table}-{slug(measure.name)}",
        "caption": f"Ours, scale “{sources.scale}”: {measure.name}, {measure.unit}{better}, 95 % interval below; "
        f"seeds: {seeds}",
        "facts": ["# trained"] * ("parameters_trainable" in rows[0]) + ["# params (%)"],
        "headings": [column.heading_at(sources.scale) for column in columns],
        "groups": groups,
        "printed": False,
    }


def _facts(row: Mapping[str, str]) -> list[str]:
    share, plain = row["params_pct_paper"], row["params_pct_plain"]
    counts = row["parameters_trainable"].split(" / ") if "parameters_trainable" in row else []
    trained = " / ".join(f"{int(count):,}" if count.isdigit() else count for count in counts)
    return [trained] * bool(counts) + [f"{share} ({plain})" if plain and plain != share else share]


def _value(row: Mapping[str, str], of: Column) -> Block | None:
    """Return one printed result; a percentage also has the ends of a strip that shows its interval on 0 to 100."""
    column = of.id
    if number(row, column) is None:
        return None
    paper, low, high = (row.get(f"{column}_{part}") for part in ("paper", "ci_low", "ci_high"))
    strip = of.measure is PERCENT
    return {
        "text": row[column],
        "spread": row.get(f"{column}_spread"),
        "interval": f"{low}–{high}" + SIGN * bool(row.get(f"{column}_floor")) if low and high else "",
        "low": number(row, f"{column}_ci_low") if strip else None,
        "high": number(row, f"{column}_ci_high") if strip else None,
        "best": row.get(f"{column}_best") == "yes",
        "dagger": row.get(f"{column}_dagger") == "yes",
        "beside": f"paper {paper}, {row.get(f'{column}_difference')}" if paper else "",
    }


def _papers(grid: Grid) -> list[Block]:
    """Return the paper's numbers as a separate table; empty if the paper has no such table."""
    if not grid.paper:
        return []
    printed = {column for _, _, column in grid.paper}
    columns = [column for column in grid.columns if column.id in printed and PAPER in column.heading]
    groups = {}
    for base, named in grid.bases.items():
        if PAPER in named["label"]:  # otherwise the block repeats another one, which has the numbers
            methods = [method for method in grid.methods if any(key[:2] == (base, method) for key in grid.paper)]
            groups[named["label"][PAPER]] = [
                {
                    "method": method,
                    "label": grid.label(method, PAPER),
                    "facts": [_share(grid.paper.get((base, method, PARAMS)))] if PARAMS in printed else [],
                    "cells": [_printed(grid.paper.get((base, method, column.id))) for column in columns],
                }
                for method in methods
            ]
    source = "; ".join(sorted({value.source for value in grid.paper.values()}))
    return [
        {
            "kind": "result_table",
            "id": f"{grid.table}-paper",
            "caption": f"{PAPERS_BLOCK}: other models, other tasks ({source})",
            "facts": ["# params (%)"] if PARAMS in printed else [],
            "headings": [column.heading[PAPER] for column in columns],
            "groups": groups,
            "printed": True,
        }
    ]


def _share(printed: PaperValue | None) -> str:
    return "—" if printed is None else "100" if printed.value == 100 else f"{printed.value:.2f}"


def _printed(printed: PaperValue | None) -> Block | None:
    none = dict.fromkeys(("spread", "interval", "low", "high", "best", "beside"))
    return printed and none | {"text": f"{printed.value:.1f}", "dagger": printed.dagger}


def _words(sources: Sources, table: str) -> list[Block]:
    """Return the text and the smaller tables of the table's own report, folded."""
    path = sources.own / "tables" / f"{table}.md"
    head, parts = sections(sources.text(path, command=sources.make(table)))
    gaps = [words(f"**{title}.**\n\n{body}", warns=True) for title, body in parts if title == GAPS]
    parts = [(title, body) for title, body in parts if title not in (GAPS, PAPERS_BLOCK, REFERENCES_BLOCK)]
    return gaps + [
        details(title, words(body, caption=title)) for title, body in [("How to read this table", head), *parts]
    ]


def _pairs(sources: Sources, table: str) -> list[Block]:
    """Return a sweep's comparisons of all pairs of methods; empty without losses."""
    name = SWEEPS.get(table, "")
    if not (sources.own / "tables" / f"{name}.md").is_file():
        return []
    return [written_table(sources, name, command=sources.make(table))]


def _tests(sources: Sources, grid: Grid) -> Block:
    labels = {method: grid.label(method, sources.scale) for method in grid.methods}
    shown = []
    for row in sources.tests(grid.table):
        whole = row | {part: labels.get(row[part], row[part]) for part in ("method", "reference")}
        whole |= {"over items": _interval(row, "ci"), "over seeds and items": _interval(row, "seeds_ci")}
        shown.append({column: whole[column] for column in TESTS if column in whole})
    caption = f"{grid.title}: each method minus its reference, in the measure's unit, with 95 % intervals"
    source = f"{sources.name(sources.own)}/significance/{grid.table}.csv"
    return data_table(f"{grid.table}-tests", caption, rows=shown, source=source)


def _pivots(sources: Sources) -> Block:
    rows = sources.rows(sources.pivots, command=sources.make("pivots"))
    caption = "What pivots the bases give, and what trained routers make of them"
    return details(caption, data_table("pivots", caption, rows=rows, source=sources.name(sources.pivots)))


def _interval(row: Mapping[str, str], name: str) -> str:
    low, high = number(row, f"{name}_low"), number(row, f"{name}_high")
    digits = measure_of(row["metric"]).digits
    return "" if low is None or high is None else f"[{low:+.{digits}f}, {high:+.{digits}f}]"
