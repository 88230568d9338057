"""Figure 3: time and extra memory of inference, with the paper's claims in a separate panel beside our measurements."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reproduction.palette import INK, MUTED, PANEL, PAPER, look
from reproduction.report.costs import COMMAND, is_done, newest, setting, variant_label
from reproduction.report.figures.sources import Absent, Rows, Sources, number
from reproduction.report.figures.style import Plate, wrapped

PHASES = ("prefill", "decode")

FARTHEST = 2.0
"""Right limit of panels; larger values stand at the edge with their number, so that values near 1 differ visibly."""

LABEL = 20
"""Maximum characters per line of a method's name on the axis."""

Line = tuple[str, bool]
"""A method of the figure, and whether it is merged."""

Mark = tuple[Line, float, bool | None]
"""A line's value, and whether layers were compiled (None for the paper's claims, which do not state it)."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One axes: its heading and its marks."""

    heading: str
    marks: list[Mark]


def figure3(sources: Sources) -> Plate:
    """Draw both rows of panels from results/<device>/benchmark.csv and experiments/figure3/paper.csv.

    The figure shows the benchmark's largest number of layers, with a panel for each phase, batch and length and all of
    its scenarios; the mark's face shows whether layers were compiled. Memory is relative to that of the method in
    paper.csv's `relative_to` in the same scenario; a scenario without that method shows no memory.

    Raises `Absent` if no inference was measured.
    """
    path = sources.results / sources.benchmark / "benchmark.csv"
    rows = [row for row in newest(sources.rows(path, command=COMMAND)) if row["phase"] in PHASES and is_done(row)]
    if not rows:
        raise Absent(f"{sources.name(path)}: prefill or decode", COMMAND)
    most = max(int(row["layers"]) for row in rows)
    rows = [row for row in rows if int(row["layers"]) == most]
    claims = sources.paper("figure3")
    labels = _labels([row for row in rows if row["trainable"] != "0"], claims)
    unit = next(claim["relative_to"] for claim in claims if claim["quantity"] == "memory")
    whose = f"{next((name for (method, _), name in labels.items() if method == unit), unit)}'s"
    bands = {quantity: _panels(rows, claims, quantity, unit=unit) for quantity in ("time", "memory")}
    bands = {quantity: panels for quantity, panels in bands.items() if any(each.marks for each in panels[1:])}
    across = len(next(iter(bands.values()), []))
    axis = {"time": "time / frozen base", "memory": f"extra memory / {whose}"}
    lengths = " and ".join(sorted({row["length"] for row in rows}, key=int))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(bands), across, squeeze=False, sharey=True, sharex="row")
        for of_band, (quantity, panels) in zip(grid, bands.items(), strict=True):
            for axes, panel in zip(of_band, panels, strict=True):
                axes.axvline(1.0 if quantity == "time" else 0.0, color=MUTED, linewidth=0.9)
                _draw_panel(axes, panel, list(labels))
                axes.set_xlabel(axis[quantity])
            of_band[0].set_facecolor(PANEL)
            of_band[0].set_yticks(range(len(labels)), [wrapped(label, LABEL) for label in labels.values()])
            of_band[0].set_ylim(len(labels) - 0.4, -0.6)
        handles = [
            Line2D([], [], color=INK, linestyle="", marker="o", markerfacecolor=face, label=label)
            for face, label in ((INK, "compiled"), (PAPER, "not compiled"))
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)

    return Plate(
        name="figure3",
        title=f"Figure 3: time and extra memory of inference, {rows[0]['model']} with {most} layers",
        caption=(
            f"Measured on {rows[0]['device']}, {rows[0]['dtype']}, random weights, {lengths} tokens. Upper "
            "panels: median time over that of the frozen base, which a merged adapter equals. Lower panels: peak "
            f"memory above the base's, over {whose}. Filled marks: decoder layers compiled; hollow: not compiled. A "
            "CUDA graph replays what is timed, except compiled prefill. A number at the edge is a mark beyond it. A "
            "merged LoRA still holds its A and B here; unloaded, it adds no memory. The tinted panels, always filled, "
            "are the paper's claims (§5.4), over LoRA merged for time; it names an A800 and neither phase, batch nor "
            "length, and prints no bytes."
        ),
        alt=_alt(bands, labels, whose),
        size=(1.9 + 1.75 * across, 0.9 + (0.5 + 0.21 * len(labels)) * len(bands)),
        draw=draw,
    )


def _line(row: dict[str, str]) -> Line:
    return row["method"], row["merged"] == "true"


def _labels(adapted: Rows, claims: Rows) -> dict[Line, str]:
    """Return the lines of every panel with their names: measured methods first, then those only in the paper."""
    of_method = {row["method"]: row["label"] for row in adapted}
    claimed = [{**claim, "label": of_method.get(claim["method"], claim["method"])} for claim in claims]
    return {_line(row): variant_label(row) for row in [*adapted, *claimed]}


def _panels(rows: Rows, claims: Rows, quantity: str, *, unit: str) -> list[Panel]:
    own = [(_line(claim), float(claim["value"]), None) for claim in claims if claim["quantity"] == quantity]
    panels = [Panel(heading="the paper", marks=own)]
    several = len({row["length"] for row in rows}) > 1
    places = {(row["phase"], row["batch"], row["length"]) for row in rows}
    for place in sorted(places, key=lambda place: (PHASES.index(place[0]), int(place[1]), int(place[2]))):
        of_panel = [row for row in rows if (row["phase"], row["batch"], row["length"]) == place]
        of_panel = [row for row in of_panel if row["trainable"] != "0"]
        values = [number(row, "ratio") if quantity == "time" else _memory(row, of_panel, unit) for row in of_panel]
        marks = [
            (_line(row), value, row["compiled"] == "true")
            for row, value in zip(of_panel, values, strict=True)
            if value is not None
        ]
        heading = f"{place[0]}, batch {place[1]}" + (f", {place[2]} tokens" if several else "")
        panels.append(Panel(heading=heading, marks=marks))
    return panels


def _memory(row: dict[str, str], of_panel: Rows, unit: str) -> float | None:
    """Return extra memory relative to that of the method ``unit`` in the same scenario."""
    same = next((each for each in of_panel if each["method"] == unit and setting(each) == setting(row)), {})
    own, whole = number(row, "extra_mib"), number(same, "extra_mib")
    return own / whole if own is not None and whole else None


def _draw_panel(axes: Axes, panel: Panel, lines: list[Line]) -> None:
    axes.set_title(panel.heading, fontweight="normal")
    for line, value, compiled in panel.marks:
        own, height = look(line[0]), lines.index(line)
        axes.plot(
            min(value, FARTHEST), height, color=own.colour, marker=own.marker, linestyle="", markersize=5.5,
            markerfacecolor=PAPER if compiled is False else own.colour,
        )  # fmt: skip
        if value > FARTHEST:
            axes.annotate(
                f"{value:.3g} →", (FARTHEST, height), xytext=(-5, 0), textcoords="offset points", ha="right",
                va="center", fontsize=7,
            )  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.1)


def _alt(bands: dict[str, list[Panel]], labels: dict[Line, str], whose: str) -> str:
    parts = []
    for quantity, panels in bands.items():
        for panel in panels:
            marks = (
                f"{labels[line]}{' compiled' if compiled else ''} {value:.2f}" for line, value, compiled in panel.marks
            )
            parts.append(f"{quantity}, {panel.heading}: {', '.join(marks)}")
    return f"Dot plots of inference relative to the frozen base, memory to {whose}. " + "; ".join(parts) + "."
