"""Figure 1(c): trainable parameters against model size and against rank, with the paper's own counts as marks."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from reproduction.palette import INK, look
from reproduction.report.figures.sources import Absent, Rows, Sources
from reproduction.report.figures.style import Plate, thousands
from reproduction.report.grid import PAPER, load_grid

COMMAND = "make table6"
LOWER = "\n\n"  # lowers every other model's name, since two of the three sizes are close
UNITS = {"K": 1e3, "M": 1e6, "B": 1e9}
RING = {"linestyle": "", "marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 0.9}


def figure1c(sources: Sources) -> Plate:
    """Draw both panels from results/counts/figure1c.csv and the counts that the paper prints in Table 6.

    Raises `Absent` if the counts were not made. Panels (a) and (b) of the paper are drawings of the method.
    """
    rows = sources.rows(sources.results / "counts" / "figure1c.csv", command=COMMAND)
    by_panel = {panel: _by_method([row for row in rows if row["panel"] == panel]) for panel in ("model", "rank")}
    if empty := [panel for panel, found in by_panel.items() if not found]:
        raise Absent(f"results/counts/figure1c.csv: panel {empty[0]}", COMMAND)
    grid = load_grid(sources.experiments / "table2")
    names = {method: grid.label(method, PAPER) for method in by_panel["rank"]}
    printed = [(int(row["rank"]), printed_count(row["printed"])) for row in sources.paper("table6")]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
        _against_size(left, by_panel["model"])
        _against_rank(right, by_panel["rank"], printed)
        for axes in (left, right):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(lambda value, _: thousands(value))
            axes.yaxis.set_minor_locator(NullLocator())
        handles = [
            Line2D([], [], color=look(method).colour, marker=look(method).marker, label=names[method])
            for method in by_panel["rank"]
        ]
        handles.append(Line2D([], [], color=INK, **RING, label="printed in the paper's Table 6"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))

    return Plate(
        name="figure1c",
        title="Figure 1(c): trainable parameters by model size and by rank",
        caption=(
            "Counted on models built from their shapes alone and adapted through the same code as training; no weights "
            "and no accuracy are involved. Left: each model's parameters against its adapter's, at the rank of "
            "its config. Right: against the rank. Both axes are logarithmic on the right; rings are the counts that "
            "the paper prints. Counts are exact, so there are no intervals."
        ),
        alt=_alt(by_panel["rank"], names),
        size=(8.6, 3.7),
        draw=draw,
    )


def printed_count(text: str) -> float:
    """Parse "21.0M" or "1.3B". Raises ValueError for another format."""
    unit = text[-1:] if text[-1:] in UNITS else ""
    try:
        return float(text.removesuffix(unit)) * UNITS.get(unit, 1)
    except ValueError as error:
        raise ValueError(f"{text!r} is no count like 21.0M; put right experiments/table6/paper.csv") from error


def _by_method(rows: Rows) -> dict[str, Rows]:
    return {name: [row for row in rows if row["method"] == name] for name in dict.fromkeys(r["method"] for r in rows)}


def _plot(axes: Axes, method: str, points: list[tuple[float, float]]) -> None:
    axes.plot(*zip(*sorted(points), strict=True), color=look(method).colour, marker=look(method).marker)


def _against_size(axes: Axes, methods: dict[str, Rows]) -> None:
    sizes = {row["model"]: float(row["base_parameters"]) for rows in methods.values() for row in rows}
    for method, rows in methods.items():
        _plot(axes, method, [(sizes[row["model"]], float(row["trainable"])) for row in rows])
    models = sorted(sizes, key=sizes.__getitem__)
    axes.set_xticks(
        [sizes[model] for model in models],
        [f"{LOWER * (place % 2)}{model}\n{sizes[model] / 1e9:.2f}B" for place, model in enumerate(models)],
    )
    axes.set_xmargin(0.14)
    axes.set_title("(c, left) by model size")
    axes.set_xlabel("model (parameters)")
    axes.set_ylabel("trainable parameters")


def _against_rank(axes: Axes, methods: dict[str, Rows], printed: list[tuple[int, float]]) -> None:
    for method, rows in methods.items():
        _plot(axes, method, [(int(row["rank"]), float(row["trainable"])) for row in rows])
    ranks = sorted({int(row["rank"]) for rows in methods.values() for row in rows})
    shown = [(rank, count) for rank, count in printed if rank in ranks]
    axes.plot(*zip(*shown, strict=True), markeredgecolor=INK, **RING)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.set_xlabel("rank r")
    models = sorted({row["model"] for rows in methods.values() for row in rows})
    axes.set_title("(c, right) by rank, " + ", ".join(models))


def _alt(methods: dict[str, Rows], names: dict[str, str]) -> str:
    parts = []
    for method, rows in methods.items():
        ranks = sorted(rows, key=lambda row: int(row["rank"]))
        first, last = ranks[0], ranks[-1]
        parts.append(
            f"{names[method]} from {thousands(float(first['trainable']))} at rank {first['rank']} "
            f"to {thousands(float(last['trainable']))} at rank {last['rank']}"
        )
    return "Two line charts of trainable parameters. " + "; ".join(parts) + "."
