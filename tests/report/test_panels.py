"""Figures of the committed tables: a panel per column, a tick per budget, and no text outside the figure."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from made_results import make_results, write
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from reproduction.palette import INK, PANEL, look
from reproduction.report.figures import FIGURES, Absent, Plate, Sources, figures_of, number
from reproduction.report.grid import UNTUNED, Column
from reproduction.report.page.results import TABLES, tables_of

BUDGETS = (
    "lora_eighth", "idlora_quarter", "lora_quarter", "idlora_half", "lora_half", "idlora", "lora", "idlora_double",
)  # fmt: skip

CI = ("ci", "seeds_ci")

Drawn = dict[str, tuple[Plate, Figure]]


@pytest.fixture(scope="module")
def committed(repository: Path) -> Sources:
    return Sources(repository / "results", repository / "experiments", "small", reference=True)


@pytest.fixture(scope="module")
def figures(committed: Sources) -> Iterator[Drawn]:
    """Every figure of the scale, laid out."""
    with ExitStack() as stack:
        found = {}
        for name in figures_of(committed):
            try:
                plate = FIGURES[name](committed)
            except Absent:
                continue
            found[name] = plate, stack.enter_context(plate.drawn())
        yield found


def panels(figure: Figure) -> list[Axes]:
    """Return the axes with our numbers; in a sweep these are the upper ones, without tint."""
    parts = [part for part in figure.subfigs or [figure] if to_hex(part.get_facecolor()) != PANEL]
    return [axes for part in parts for axes in part.axes if axes.get_visible()]


def columns_of(sources: Sources, table: str, base: str | None = None) -> list[Column]:
    """Return the columns with a number of a trained method, on this base or on any."""
    rows = [row for row in sources.table(table) if row["method"] != UNTUNED and base in (None, row["base"])]
    columns = sources.grid(table).columns_at(sources.scale)
    return [each for each in columns if any(number(row, each.id) is not None for row in rows)]


def overlapping(axes: Axes) -> list[tuple[str, str]]:
    """Return neighbouring labels of a horizontal axis that overlap."""
    labels = [label for label in axes.get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    return [
        (one.get_text(), other.get_text())
        for (one, box), (other, next_box) in pairwise(zip(labels, boxes, strict=True))
        if box.x1 > next_box.x0
    ]


def test_every_column_of_a_table_has_its_panel_on_each_base(committed: Sources, figures: Drawn) -> None:
    for table, name in TABLES.items():
        if table not in tables_of(committed):
            assert name not in figures
            continue
        plate, figure = figures[name]
        bases = committed.grid(table).bases if plate.name.endswith("_differences") else [None]
        columns = [column for base in bases for column in columns_of(committed, table, base)]
        shown = [axes.get_title(loc="left").replace("\n", " ") for axes in panels(figure)]
        headings = [column.heading_at(committed.scale) for column in columns]
        assert len(shown) == len(headings) > 5 * len(bases)
        assert all(title.startswith(heading) for title, heading in zip(shown, headings, strict=True)), table


def test_the_panels_of_a_base_stand_below_its_name_on_axes_that_span_its_own_differences_alone(
    committed: Sources, figures: Drawn
) -> None:
    for name, (plate, figure) in figures.items():
        if not plate.name.endswith("_differences"):
            continue
        rows = [row for row in committed.tests(name) if row["method"] != UNTUNED]
        bases = [base for base in committed.grid(name).bases if any(row["base"] == base for row in rows)]
        _, *parts = figure.subfigs
        for base, part in zip(bases, parts, strict=True):
            (label,) = {row["base_label"] for row in rows if row["base"] == base}
            assert part.get_suptitle().replace("\n", " ") == label
            shown = [axes for axes in part.axes if axes.get_visible()]
            for column, axes in zip(columns_of(committed, name, base), shown, strict=True):
                of_panel = [row for row in rows if (row["base"], row["column"]) == (base, column.id)]
                ends = [number(row, f"{which}_{end}") for row in of_panel for which in CI for end in ("low", "high")]
                found = [0.0, *(end for end in ends if end is not None)]
                lines = axes.lines
                assert look("base").colour not in {to_hex(line.get_color()) for line in lines}
                losses = column.measure.lower_is_better
                unit = "(nats a token; ← better)" if losses else "(percentage points)"
                assert axes.get_xlabel().startswith("difference from ")
                assert axes.get_xlabel().endswith(unit)
                low, high = axes.get_xlim()
                assert low <= min(found) <= max(found) <= high
                assert high - low < 1.2 * (max(found) - min(found)), (name, base, column.id)


def test_every_trained_method_of_a_sweep_is_a_point_of_each_panel(committed: Sources, figures: Drawn) -> None:
    for table, name in (("table7", "figure4"), ("table8", "table8")):
        trained = [row["method"] for row in committed.table(table) if row["method"] != UNTUNED]
        for axes in panels(figures[name][1]):
            assert sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() != "None") == len(trained)


def test_no_text_lies_beyond_a_figures_edge_and_no_panels_title_on_another(figures: Drawn) -> None:
    for name, (_, figure) in figures.items():
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert 0 <= drawn.x0 < drawn.x1 <= width, name
        assert 0 <= drawn.y0 < drawn.y1 <= height, name
        titles = [axes._left_title.get_window_extent() for axes in figure.axes if axes.get_title(loc="left")]
        assert not [pair for pair in combinations(titles, 2) if Bbox.intersection(*pair)], name


@pytest.mark.parametrize(
    ("scale", "counts"),
    [
        ("tiny", [12_288, 30_720, 24_576, 33_792, 36_864, 43_008, 73_728, 61_440]),
        ("small", [610_560, 910_080, 1_221_120, 1_221_120, 1_831_680, 1_843_200, 3_052_800, 2_465_280]),
    ],
)
def test_figure_4_has_a_tick_at_every_budget_and_no_label_lies_on_another(
    scale: str, counts: list[int], repository: Path, tmp_path: Path
) -> None:
    sources = Sources(*make_results(repository, tmp_path, scale=scale), scale)
    rows = {row["method"]: row for row in sources.table("table7")}
    budgets = dict(zip(BUDGETS, counts, strict=True))
    made = [rows[method] | {"parameters_trainable": count} for method, count in budgets.items()]
    write(sources.own / "tables" / "table7.csv", made)
    with FIGURES["figure4"](sources).drawn() as figure:
        for axes in panels(figure):
            assert sorted(axes.get_xticks()) == sorted(set(counts))
        for axes in panels(figure)[-3:]:
            colours = [label.get_color() for label in axes.get_xticklabels()]
            assert colours == [
                look(methods.pop().split("_")[0]).colour if len(methods) == 1 else INK
                for count in sorted(set(counts))
                if (methods := {method for method, own in budgets.items() if own == count})
            ]
        assert not [pair for part in figure.subfigs for axes in part.axes for pair in overlapping(axes)]
