"""Every method against its reference, as a dot and an interval: what significance/<table>.csv says, at a glance."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from idlora.palette import MUTED, PAPER, look
from idlora.report.figures.sources import Absent, Rows, Sources, number
from idlora.report.figures.style import Plate, signed, wrapped
from idlora.report.grid import UNTUNED, Column, Grid
from idlora.report.ordering import AT_FLOOR

ACROSS = 3  # panels side by side
HEAD, LINE, TITLE = 0.85, 0.19, 0.15  # inches of a panel without its lines, of each line, of a further line of title
ROOM, LETTER = 2.65, 0.07  # inches of a panel from side to side, and of a letter of a name on the axis
WIDE, LABEL = 36, 28  # characters of a panel's title on one line, and of a name on the axis


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a panel: a method on one base, its difference and the intervals, in points (None: not tested)."""

    method: str
    label: str
    found: dict[str, str] | None

    @property
    def floor(self) -> str:
        """Where a trained method of the base stands on this column, "chance" or "zero": nobody is ahead then."""
        return self.found.get("floor", "") if self.found else ""

    @property
    def direction(self) -> int:
        """+1 where the value is higher beyond noise, -1 where lower, 0 where neither can be said."""
        low, high = self.widest
        return 0 if self.floor else (low > 0) - (high < 0)

    @property
    def widest(self) -> tuple[float, float]:
        """The interval that a claim about methods needs: over seeds and items where there are several seeds."""
        return _ends(self.found, "seeds_ci") or _ends(self.found, "ci")


def differences(sources: Sources, table: str) -> Plate:
    """The dot plot of one table. Raises `Absent` where its tests were not made, `GridError` for a broken grid.

    Leaves out the untuned base: it lies so far off that on one axis with it all methods would be one point.
    """
    grid, tests = sources.grid(table), sources.tests(table)
    rows = [row for row in tests if row["method"] != UNTUNED]
    columns = [each for each in grid.columns_at(sources.scale) if any(_is_of(row, each) for row in rows)]
    if not columns:
        raise Absent(f"a test of any column of {table}", sources.make(table))
    lines = {column.id: _lines(grid, rows, column, scale=sources.scale) for column in columns}
    deep = -(-len(columns) // ACROSS)
    across = min(ACROSS, len(columns))
    said = {column.id: _floor(lines[column.id]) for column in columns}
    height = deep * (HEAD + LINE * len(lines[columns[0].id]) + TITLE * max(text.count("\n") for text in said.values()))
    names = "\n".join(map(_name, lines[columns[0].id]))
    longest = max(map(len, names.split("\n")))
    return Plate(
        name=f"{table}_differences",
        title=f"{grid.title.split(':')[0]}: each method against {_reference(grid, sources.scale)}",
        caption=_caption(grid, rows, scale=sources.scale, base=len(tests) > len(rows)),
        alt=_alt(lines, grid, scale=sources.scale),
        size=(0.3 + LETTER * longest + ROOM * across, height),
        draw=_drawing(grid, columns, lines, shape=(deep, across), scale=sources.scale),
    )


def _lines(grid: Grid, rows: Rows, column: Column, *, scale: str) -> list[Line | str]:
    """A base's name, then its methods: the same lines in every panel, so that they share an axis.

    Empty lines make room for a name of several.
    """
    of_column = {(row["base"], row["method"]): row for row in rows if _is_of(row, column)}
    names = {row["base"]: row["base_label"] for row in rows}
    lines: list[Line | str] = []
    for base in grid.bases:
        tested = [
            method for method in grid.methods if any((row["base"], row["method"]) == (base, method) for row in rows)
        ]
        if tested and len(grid.bases) > 1:
            lines += [""] * _name(names[base]).count("\n") + [names[base]]
        lines += [
            Line(method=method, label=grid.label(method, scale), found=of_column.get((base, method)))
            for method in tested
        ]
    return lines


def _drawing(
    grid: Grid,
    columns: list[Column],
    lines: dict[str, list[Line | str]],
    *,
    shape: tuple[int, int],
    scale: str,
) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        panels = figure.subplots(*shape, squeeze=False, sharey=True)
        for axes in panels.flat[len(columns) :]:
            axes.set_visible(False)
        for axes, column in zip(panels.flat, columns, strict=False):
            _panel(axes, lines[column.id])
            axes.set_title(wrapped(column.heading_at(scale), WIDE) + _floor(lines[column.id]), fontweight="normal")
            better = "; ← better" if column.measure.lower_is_better else ""
            axes.set_xlabel(f"difference ({column.measure.points}{better})")
        of_panel = lines[columns[0].id]
        for axes in panels[:, 0]:
            axes.set_yticks(range(len(of_panel)), map(_name, of_panel))
            for tick, each in zip(axes.get_yticklabels(), of_panel, strict=True):
                tick.set_fontweight("bold" if isinstance(each, str) else "normal")
                if isinstance(each, str) and "\n" in tick.get_text():
                    tick.set_verticalalignment("bottom")  # up into the empty lines
            axes.set_ylim(len(of_panel) - 0.4, -0.6)

    return draw


def _floor(lines: list[Line | str]) -> str:
    """The lines of a panel's title that say of which bases no method is called ahead, each on its own where they
    differ; else empty.
    """
    of_base, base = {}, ""
    for line in lines:
        if line == "":  # room for a name
            continue
        if isinstance(line, str):
            base = f"{line} "
            of_base[base] = ""
        elif line.floor:
            of_base[base] = AT_FLOOR[line.floor]
    if len(set(of_base.values())) == 1:
        of_base = {"": next(iter(of_base.values()))}
    said = (f"{name}{where}: no method is called ahead" for name, where in of_base.items() if where)
    return "".join(f"\n{wrapped(each, WIDE)}" for each in said)


def _panel(axes: Axes, lines: list[Line | str]) -> None:
    axes.axvline(0, color=MUTED, linewidth=0.9)
    for height, line in enumerate(lines):
        if isinstance(line, str) or line.found is None:
            continue
        own = look(line.method)
        for part, width in (("seeds_ci", 1.0), ("ci", 2.2)):
            if ends := _ends(line.found, part):
                axes.plot(ends, [height] * 2, color=own.colour, linewidth=width, solid_capstyle="butt")
        face = own.colour if line.direction else PAPER
        axes.plot(
            number(line.found, "difference"), height, color=own.colour, marker=own.marker, markersize=5.5,
            markerfacecolor=face, linestyle="",
        )  # fmt: skip
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=5)
    signed(axes)


def _name(line: Line | str) -> str:
    """What stands on the axis beside a line, a base's name or a method's, over as many lines of text as it needs."""
    return textwrap.fill(line if isinstance(line, str) else line.label, LABEL, break_on_hyphens=False)


def _ends(row: dict[str, str], name: str) -> tuple[float, float] | None:
    low, high = number(row, f"{name}_low"), number(row, f"{name}_high")
    return None if low is None or high is None else (low, high)


def _is_of(row: dict[str, str], column: Column) -> bool:
    return row["column"] == column.id


def _reference(grid: Grid, scale: str) -> str:
    return grid.label(grid.reference, scale) if isinstance(grid.reference, str) else "its partner"


def _caption(grid: Grid, rows: Rows, *, scale: str, base: bool) -> str:
    sizes = list(dict.fromkeys(f"{row['items']} {row['unit']}s ({row['benchmark']})" for row in rows))
    seeds = sorted({int(row["seeds"]) for row in rows})
    counted = " or ".join(map(str, seeds))
    several = any(row["seeds_ci_low"] for row in rows)
    floor = ", or stands where a trained method is at chance or zero" if any(row.get("floor") for row in rows) else ""
    thin = " thin over seeds and items together;" if several else ""
    plural = "" if counted == "1" else "s"
    return (
        f"Each method minus {_reference(grid, scale)} on the same items; right of zero the method has the higher "
        "value, which is better for scores and worse for losses. Bars are 95 % bootstrap intervals: thick over items,"
        f"{thin} a hollow mark has zero inside {'the thin bar' if several else 'its bar'}{floor}. "
        f"{'The untuned base is tested and not drawn. ' if base else ''}n = {', '.join(sizes)}; {counted} "
        f"seed{plural} a method."
    )


def _alt(lines: dict[str, list[Line | str]], grid: Grid, *, scale: str) -> str:
    drawn = [each for of_column in lines.values() for each in of_column if isinstance(each, Line) and each.found]
    floor = sum(bool(each.floor) for each in drawn)
    above, below, neither = (sum(each.direction == sign for each in drawn) for sign in (1, -1, 0))
    at_floor = f", {floor} where a trained method is at chance or zero" if floor else ""
    return (
        f"Dot plot of {len(drawn)} differences from {_reference(grid, scale)}: {above} higher, {below} lower, "
        f"{neither - floor} with zero inside the interval{at_floor}. The numbers stand in the table of tests."
    )
