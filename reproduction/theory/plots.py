"""Figures of the theory studies: curves with 95 % bands, as PNG and PDF."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reproduction.palette import INK, MUTED, NEUTRAL, PAPER, RC, look
from reproduction.theory import rank, rows, theorem1, theorem2
from reproduction.theory.estimates import Point

Style = tuple[str, str]
"""Colour and marker."""

IDLORA, MOELORA, ROUTER, ROWS = (
    (look(method).colour, look(method).marker)
    for method in ("idlora", "moelora", "idlora_uniform", "idlora_orthonormal")
)
GLOBAL = (MUTED, "s")
"""Style of the unclustered baseline, which is not a method of the tables."""

TITLES = {"assumed": "B and A_i known (the proof)", "definition4": "Definition 4 as written", "joint": "best B and A_l"}
STYLE = RC | {"figure.dpi": 130, "axes.titleweight": "normal", "legend.fontsize": 7.5, "lines.markersize": 4}
SEPARATION = "separation / spread within a cluster"


def draw(points: Sequence[Point], folder: Path) -> None:
    """Draw every figure into `folder`, without dates, so that the bytes are reproducible."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figures = {"theorem1": errors_and_delta(points), "theorem1_proof": proof(points)}
        for number, world in enumerate(_settings(points, theorem2.STUDY), start=1):
            figures[f"theorem2_{number}"] = worst_errors(points, world)
        figures |= {"rank": ranks(points), "rows": row_clusters(points)}
        for name, figure in figures.items():
            figure.get_layout_engine().execute(figure)  # once for both files: as slow as drawing one
            figure.set_layout_engine("none")
            for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Producer": None})):
                figure.savefig(folder / f"{name}.{suffix}", metadata=metadata)
            plt.close(figure)


def errors_and_delta(points: Sequence[Point], setting: str = "independent noise") -> Figure:
    """Plot Theorem 1: errors (top), gap and Δ (bottom) over separation, one column per reading."""
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 5.6), sharex=True, sharey="row", layout="constrained")
    for (top, bottom), reading in zip(axes.T, theorem1.READINGS, strict=True):
        here = _pick(points, study=theorem1.STUDY, setting=setting, series=reading, x_name="separation")
        _curve(top, here, "global", style=GLOBAL, label="global")
        _curve(top, here, "clustered", style=IDLORA, label="clustered")
        if reading == "definition4":
            hollow = {"linestyle": "--", "markerfacecolor": PAPER}
            _curve(top, here, "best_signs", style=IDLORA, label="clustered, best signs", **hollow)
        _curve(bottom, here, "gap", style=NEUTRAL[1], label="global - clustered")
        _curve(bottom, here, "delta", style=(INK, "x"), label="Δ", linestyle="--")
        bottom.axhline(0, color=INK, linewidth=0.6)
        top.set_title(TITLES[reading])
        bottom.set_xlabel(SEPARATION)
        for axis in (top, bottom):
            _near_zero_log(axis)
            axis.legend()
    axes[0, 0].set_ylabel("Σ‖W* - W̃‖² / Σ‖W*‖²")
    axes[1, 0].set_ylabel("share of Σ‖W*‖²")
    figure.suptitle(f"Theorem 1, {setting}; bands are 95 % intervals over draws")
    return figure


def proof(points: Sequence[Point]) -> Figure:
    """Plot Theorem 1's proof: (21) by task, the cross terms, Δ without clusters, the rank of centroids."""
    figure, ((tasks, cross), (none, ranks_)) = plt.subplots(2, 2, figsize=(8.4, 6.4), layout="constrained")
    curves = _pick(points, study=theorem1.STUDY, series="assumed", x_name="separation")
    for setting, style in zip(_settings(curves, theorem1.STUDY), NEUTRAL, strict=False):
        _curve(tasks, _pick(curves, setting=setting), "tasks_violating_21", style=style, label=setting)
    _near_zero_log(tasks)
    tasks.set(xlabel=SEPARATION, ylabel="share of tasks", title="Tasks nearer to A_global than to A_l (against Eq. 21)")
    curves = _pick(points, study=theorem1.STUDY, x_name="correlation")
    for setting, style in zip(_settings(curves, theorem1.STUDY), NEUTRAL, strict=False):
        label = setting.replace("correlation at noise", "‖E_i‖ =")
        _curve(cross, _pick(curves, setting=setting), "gap_minus_delta", style=style, label=label)
    cross.axhline(0, color=INK, linewidth=0.6)
    cross.set(xlabel="cosine of E_i with the cluster's shift", ylabel="gap - Δ, share of Σ‖W*‖²")
    cross.set_title("The dropped cross terms (above 0: Eq. 18 holds)")
    _curve(none, _pick(points, setting="no clusters"), "delta", style=(INK, "x"), label="Δ")
    none.set(xlabel="clusters asked of k-means", ylabel="Δ, share of Σ‖W*‖²", title="Δ where there are no clusters")
    curves = _pick(points, setting="rank of centroids")
    _curve(ranks_, curves, "difference_rank", style=NEUTRAL[0], label="r_l: largest rank of a difference")
    _curve(ranks_, curves, "centroid_rank", style=NEUTRAL[1], label="rank of M_l")
    ranks_.set(xlabel="rank of the within-cluster part", ylabel="rank", title="Ranks within clusters, and of centroids")
    ranks_.locator_params(integer=True)
    for axis in (tasks, cross, none, ranks_):
        axis.legend()
    return figure


def worst_errors(points: Sequence[Point], world: str) -> Figure:
    """Plot Theorem 2 in one world: expected worst error over the rare direction's weight, one panel per contest."""
    here = _pick(points, study=theorem2.STUDY, setting=world)
    contests = list(dict.fromkeys(p.series for p in here if p.quantity == "difference"))
    rows_ = -(-len(contests) // 4)
    figure, axes = plt.subplots(rows_, 4, figsize=(11, 2.9 * rows_), sharex=True, sharey=True, layout="constrained")
    for axis, contest in zip(axes.flat, contests, strict=False):
        mine = _pick(here, series=contest)
        _curve(axis, mine, "global", style=GLOBAL, label="global pivots")
        _curve(axis, mine, "local", style=IDLORA, label="cluster-local pivots")
        axis.set(xscale="log", title=contest.replace(", ", "\n", 1), xlabel="weight of the rare direction")
        axis.set_yscale("symlog", linthresh=0.01)
        axis.set_ylim(0, 1.3 * max(p.high for p in here if p.quantity in ("global", "local")))
        axis.set_xticks([p.x for p in mine if p.quantity == "global"])
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
    for axis in axes.flat[len(contests) :]:
        axis.set_visible(False)
    for axis in axes.flat:
        axis.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("E max ‖W* - W̃‖²\n(shared part: 1)")
    axes.flat[0].legend()
    figure.suptitle(f"Theorem 2, {world}; bands are 95 % intervals over worlds")
    return figure


def ranks(points: Sequence[Point]) -> Figure:
    """Plot §4.2 at the largest r: numerical ranks over k; all s with the same curves share a panel."""
    setting = _settings(points, rank.STUDY)[-1]
    shown = {
        "inputs": ("directions that are read", ROWS, 10), "separate_b": ("a B for each expert", MOELORA, 5),
        "outputs_dense": ("outputs, α by token", ROUTER, 10), "update": ("update, fixed α", IDLORA, 5),
    }  # fmt: skip
    here = [p for p in _pick(points, study=rank.STUDY, setting=setting) if p.quantity in shown]
    panels: dict[tuple[tuple[str, float, float], ...], list[str]] = {}
    for series in dict.fromkeys(p.series for p in here):
        curves = tuple((p.quantity, p.x, p.mean) for p in _pick(here, series=series))
        panels.setdefault(curves, []).append(series)
    figure, axes = _row(len(panels), (2.4 + 3.6 * len(panels), 3.2))
    r = int(setting.removeprefix("r="))
    for axis, alike in zip(axes, panels.values(), strict=True):
        mine = _pick(here, series=alike[0])
        for quantity, (label, style, size) in shown.items():
            face = style[0] if size < 10 else PAPER  # hollow, so that markers on top stay visible
            _curve(axis, mine, quantity, style=style, label=label, markersize=size, markerfacecolor=face)
        ks = sorted({p.x for p in mine})
        axis.plot(ks, [k * r for k in ks], color=INK, linestyle=":", label="k·r (§4.2)")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.set(xlabel="clusters k", xticks=ks)
        axis.set_title(f"{setting}, {', '.join(alike)}{' alike' if len(alike) > 1 else ''}")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_major_formatter("{x:g}")
    axes[0].set_ylabel("numerical rank")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def row_clusters(points: Sequence[Point]) -> Figure:
    """Plot §4.1: share of row variance explained by k-means, against both nulls, one panel per base."""
    bases = _settings(points, rows.STUDY)
    figure, axes = _row(len(bases), (4.8 * len(bases), 3.6))
    for axis, base in zip(axes, bases, strict=True):
        here = _pick(points, study=rows.STUDY, setting=base)
        for offset, quantity in enumerate(("trained", "same_covariance", "gaussian")):
            mine = _pick(here, quantity=quantity)
            errors = [[max(p.mean - p.low, 0) for p in mine], [max(p.high - p.mean, 0) for p in mine]]
            colour, marker = NEUTRAL[offset]
            axis.errorbar(
                [p.x + 0.2 * (offset - 1) for p in mine], [p.mean for p in mine], yerr=errors, capsize=2,
                color=colour, marker=marker, linestyle="none", label=quantity.replace("_", " "),
            )  # fmt: skip
        axis.set_xticks(range(len(rows.PROJECTIONS)), [name.removesuffix("_proj") for name in rows.PROJECTIONS])
        axis.set(title=base, xlabel="projection")
    axes[0].set_ylim(0)  # the panels share y; set after all bars are drawn
    axes[0].set_ylabel("between-cluster share of row variance")
    axes[0].legend()
    figure.suptitle("k-means on rows; bars are 95 % intervals over layers")
    return figure


def _row(panels: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(1, panels, figsize=size, sharey=True, layout="constrained", squeeze=False)
    return figure, [*axes[0]]


def _pick(points: Sequence[Point], **where: str) -> list[Point]:
    return [p for p in points if all(getattr(p, name) == value for name, value in where.items())]


def _settings(points: Sequence[Point], study: str) -> list[str]:
    return list(dict.fromkeys(p.setting for p in points if p.study == study))


def _curve(axis: Axes, points: Sequence[Point], quantity: str, *, style: Style, **line: str | float) -> None:
    colour, marker = style
    curve = sorted(_pick(points, quantity=quantity), key=lambda p: p.x)
    xs = [p.x for p in curve]
    axis.plot(xs, [p.mean for p in curve], color=colour, marker=marker, **line)
    axis.fill_between(xs, [p.low for p in curve], [p.high for p in curve], color=colour, alpha=0.2, linewidth=0)


def _near_zero_log(axis: Axes) -> None:
    """Set a symmetric-log axis that includes 0, with ticks at the separations."""
    axis.set_xscale("symlog", base=2, linthresh=0.25)
    axis.set_xticks([0, 0.25, 0.5, 1, 2, 4, 8], ["0", "¼", "½", "1", "2", "4", "8"])
