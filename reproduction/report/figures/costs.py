"""Figure 3: time and extra memory of inference, the paper's claims in a panel apart beside what was measured here."""

from collections.abc import Callable
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
"""Where panels end: what lies beyond stands at the edge with its number, so that what lies near 1 can be told apart."""

LABEL = 20
"""Characters of a method's name on one line of the axis."""

Line = tuple[str, bool]
"""A method of the figure, and whether it is merged."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One value of one line; `compiled` is None for a claim of the paper, which does not say."""

    line: Line
    value: float
    compiled: bool | None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One axes: its heading and its marks."""

    heading: str
    marks: list[Mark]
    printed: bool


def figure3(sources: Sources) -> Plate:
    """Both rows of panels, from results/<device>/benchmark.csv and experiments/figure3/paper.csv.

    Of the benchmark's layer counts the largest is shown, a panel for each phase, batch and length, with all of its
    scenarios: compiled or not is the mark's face. Memory is over that of the method that paper.csv's memory is
    `relative_to`, in the same scenario; a scenario without it has no memory.

    Raises `Absent` where no inference was measured.
    Leaves out training, and the adapters' dtype, which is the base's in this suite.
    """
    path = sources.results / sources.benchmark / "benchmark.csv"
    rows = [row for row in newest(sources.rows(path, command=COMMAND)) if row["phase"] in PHASES and is_done(row)]
    if not rows:
        raise Absent(f"{sources.name(path)}: prefill or decode", COMMAND)
    most = max(int(row["layers"]) for row in rows)
    rows = [row for row in rows if int(row["layers"]) == most]
    claims = sources.paper("figure3")
    adapted = [row for row in rows if row["trainable"] != "0"]
    labels = _labels(adapted, claims)
    yardstick = next(claim["relative_to"] for claim in claims if claim["quantity"] == "memory")
    whose = f"{next((name for (method, _), name in labels.items() if method == yardstick), yardstick)}'s"
    bands = {quantity: _panels(rows, claims, quantity, yardstick=yardstick) for quantity in ("time", "memory")}
    bands = {quantity: panels for quantity, panels in bands.items() if any(each.marks for each in panels[1:])}
    return Plate(
        name="figure3",
        title=f"Figure 3: time and extra memory of inference, {rows[0]['model']} with {most} layers",
        caption=(
            f"Measured on {rows[0]['device']}, {rows[0]['dtype']}, random weights, {_lengths(rows)} tokens. Upper "
            "panels: median time over that of the frozen base, which a merged adapter equals. Lower panels: peak "
            f"memory above the base's, over {whose}. Filled marks: decoder layers compiled; hollow: not compiled. A "
            "CUDA graph replays what is timed, except compiled prefill. A number at the edge is a mark beyond it. A "
            "merged LoRA still holds its A and B here; unloaded, it adds no memory. The tinted panels, always filled, "
            "are the paper's claims (§5.4), over LoRA merged for time; it names an A800 and neither phase, batch nor "
            "length, and prints no bytes."
        ),
        alt=_alt(bands, labels, whose),
        size=(
            1.9 + 1.75 * len(next(iter(bands.values()), [])),
            0.9 + (0.5 + 0.21 * len(labels)) * len(bands),
        ),
        draw=_drawing(bands, labels, whose),
    )


def _line(row: dict[str, str]) -> Line:
    return row["method"], row["merged"] == "true"


def _labels(adapted: Rows, claims: Rows) -> dict[Line, str]:
    """The lines of every panel, each with its name: what was measured first, then what the paper alone has."""
    of_method = {row["method"]: row["label"] for row in adapted}
    claimed = [{**claim, "label": of_method.get(claim["method"], claim["method"])} for claim in claims]
    return {_line(row): variant_label(row) for row in [*adapted, *claimed]}


def _lengths(rows: Rows) -> str:
    return " and ".join(sorted({row["length"] for row in rows}, key=int))


def _panels(rows: Rows, claims: Rows, quantity: str, *, yardstick: str) -> list[Panel]:
    printed = [
        Mark(line=_line(each), value=float(each["value"]), compiled=None)
        for each in claims
        if each["quantity"] == quantity
    ]
    panels = [Panel(heading="the paper", marks=printed, printed=True)]
    several = len({row["length"] for row in rows}) > 1
    for place in dict.fromkeys(_place(row) for row in _ordered(rows)):
        of_panel = [row for row in rows if _place(row) == place and row["trainable"] != "0"]
        found = [(row, _value(row, of_panel, quantity, yardstick=yardstick)) for row in of_panel]
        marks = [
            Mark(line=_line(row), value=value, compiled=row["compiled"] == "true")
            for row, value in found
            if value is not None
        ]
        phase, batch, length = place
        heading = f"{phase}, batch {batch}" + (f", {length} tokens" if several else "")
        panels.append(Panel(heading=heading, marks=marks, printed=False))
    return panels


def _place(row: dict[str, str]) -> tuple[str, str, str]:
    """What a panel shows: phase, batch, length."""
    return row["phase"], row["batch"], row["length"]


def _ordered(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: (PHASES.index(row["phase"]), int(row["batch"]), int(row["length"])))


def _value(row: dict[str, str], of_panel: Rows, quantity: str, *, yardstick: str) -> float | None:
    if quantity == "time":
        return number(row, "ratio")
    unit = next((each for each in of_panel if each["method"] == yardstick and setting(each) == setting(row)), None)
    own, whole = number(row, "extra_mib"), unit and number(unit, "extra_mib")
    return own / whole if own is not None and whole else None


def _drawing(bands: dict[str, list[Panel]], labels: dict[Line, str], whose: str) -> Callable[[Figure], None]:
    lines = list(labels)
    units = {"time": "time / frozen base", "memory": f"extra memory / {whose}"}

    def draw(figure: Figure) -> None:
        across = len(next(iter(bands.values())))
        grid = figure.subplots(len(bands), across, squeeze=False, sharey=True, sharex="row")
        for of_band, (quantity, panels) in zip(grid, bands.items(), strict=True):
            for axes, panel in zip(of_band, panels, strict=True):
                _draw_panel(axes, panel, lines, neutral=1.0 if quantity == "time" else 0.0)
                axes.set_xlabel(units[quantity])
            of_band[0].set_yticks(range(len(lines)), [wrapped(label, LABEL) for label in labels.values()])
            of_band[0].set_ylim(len(lines) - 0.4, -0.6)
        handles = [
            Line2D([], [], color=INK, linestyle="", marker="o", markerfacecolor=face, label=label)
            for face, label in ((INK, "compiled"), (PAPER, "not compiled"))
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)

    return draw


def _draw_panel(axes: Axes, panel: Panel, lines: list[Line], *, neutral: float) -> None:
    axes.axvline(neutral, color=MUTED, linewidth=0.9)
    axes.set_title(panel.heading, fontweight="normal")
    if panel.printed:
        axes.set_facecolor(PANEL)
    for mark in panel.marks:
        own = look(mark.line[0])
        beyond = mark.value > FARTHEST
        axes.plot(
            min(mark.value, FARTHEST), lines.index(mark.line), color=own.colour, marker=own.marker, linestyle="",
            markersize=5.5, markerfacecolor=PAPER if mark.compiled is False else own.colour,
        )  # fmt: skip
        if beyond:
            axes.annotate(
                f"{mark.value:.3g} →", (FARTHEST, lines.index(mark.line)), xytext=(-5, 0), textcoords="offset points",
                ha="right", va="center", fontsize=7,
            )  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.1)


def _alt(bands: dict[str, list[Panel]], labels: dict[Line, str], whose: str) -> str:
    said = []
    for quantity, panels in bands.items():
        for panel in panels:
            marks = (
                f"{labels[mark.line]}{' compiled' if mark.compiled else ''} {mark.value:.2f}" for mark in panel.marks
            )
            said.append(f"{quantity}, {panel.heading}: {', '.join(marks)}")
    return f"Dot plots of inference relative to the frozen base, memory to {whose}. " + "; ".join(said) + "."
