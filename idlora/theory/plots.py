"""Figures of the theory: every curve with its 95 % band, as PNG and PDF, in the Okabe-Ito palette."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from idlora.theory import rank, rows, theorem1, theorem2
from idlora.theory.estimates import Point

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = "osD^vPX"
TITLES = {"assumed": "B and A_i known (the proof)", "definition4": "Definition 4 as written", "joint": "best B and A_l"}
STYLE = {
    "figure.dpi": 110, "savefig.dpi": 130, "font.size": 9, "axes.titlesize": 9, "legend.fontsize": 7.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "lines.markersize": 4,
}  # fmt: skip
SEPARATION = "separation / spread within a cluster"
WEIGHT = "weight of the rare direction"


def draw(points: Sequence[Point], folder: Path) -> list[Path]:
    """Draw every figure into ``folder`` and return the files; without dates inside, so that the bytes repeat."""
    with plt.rc_context(STYLE):
        figures = {
            "theorem1": errors_and_delta(points),
            "theorem1_assumptions": assumptions(points),
            "theorem1_proof": proof(points),
            **{
                f"theorem2_{number}": worst_errors(points, world)
                for number, world in enumerate(_settings(points, theorem2.STUDY), start=1)
            },
            "rank": ranks(points),
            "rows": row_clusters(points),
        }
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, figure in figures.items():
            figure.get_layout_engine().execute(figure)  # once for both files: it takes as long as drawing one
            figure.set_layout_engine("none")
            for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Producer": None})):
                written.append(folder / f"{name}.{suffix}")
                figure.savefig(written[-1], metadata=metadata)
            plt.close(figure)
        return written


def errors_and_delta(points: Sequence[Point], setting: str = "independent noise") -> Figure:
    """Theorem 1: errors (top), gap and Δ (bottom) over separation, a column for each reading."""
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 5.6), sharex=True, sharey="row", layout="constrained")
    for column, reading in zip(axes.T, theorem1.READINGS, strict=True):
        here = _pick(points, study=theorem1.STUDY, setting=setting, series=reading, x_name="separation")
        _curve(column[0], here, "global", label="global", color=VERMILLION, marker="s")
        _curve(column[0], here, "clustered", label="clustered", color=BLUE)
        if reading == "definition4":
            _curve(column[0], here, "best_signs", label="clustered, best signs", color=SKY, marker="^", linestyle="--")
        _curve(column[1], here, "gap", label="global - clustered", color=GREEN)
        _curve(column[1], here, "delta", label="Δ", color=BLACK, marker="x", linestyle="--")
        column[1].axhline(0, color=BLACK, linewidth=0.6)
        column[0].set_title(TITLES[reading])
        column[1].set_xlabel(SEPARATION)
        for axis in column:
            _near_zero_log(axis)
            axis.legend()
    axes[0, 0].set_ylabel("Σ‖W* - W̃‖² / Σ‖W*‖²")
    axes[1, 0].set_ylabel("share of Σ‖W*‖²")
    figure.suptitle(f"Theorem 1, {setting}; bands are 95 % intervals over draws")
    return figure


def assumptions(points: Sequence[Point]) -> Figure:
    """Theorem 1: how often (18), and clustered ≤ global, hold in every scenario, a column for each reading."""
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 5.6), sharex=True, sharey=True, layout="constrained")
    settings = _settings(_pick(points, x_name="separation"), theorem1.STUDY)
    for quantity, row in zip(("inequality_18_holds", "clustered_not_worse"), axes, strict=True):
        for reading, axis in zip(theorem1.READINGS, row, strict=True):
            for position, setting in enumerate(settings):
                here = _pick(points, study=theorem1.STUDY, setting=setting, series=reading, x_name="separation")
                curve = sorted((p for p in here if p.quantity == quantity), key=lambda p: p.x)
                shift = 0.14 * (position - (len(settings) - 1) / 2)  # side by side, for most lie on 0 or 1
                style = {"color": CYCLE[position], "marker": MARKERS[position], "linewidth": 0.8, "label": setting}
                _bars(axis, curve, [place + shift for place in range(len(curve))], **style)
            axis.set_xticks(range(len(curve)), [f"{p.x:g}" for p in curve])
            axis.set_ylim(-0.05, 1.05)
    for axis, reading in zip(axes[0], theorem1.READINGS, strict=True):
        axis.set_title(TITLES[reading])
    for axis in axes[1]:
        axis.set_xlabel(SEPARATION)
    axes[0, 0].set_ylabel("share of draws:\nclustered ≤ global - Δ")
    axes[1, 0].set_ylabel("share of draws:\nclustered ≤ global")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def proof(points: Sequence[Point]) -> Figure:
    """Theorem 1's proof: (21) by task, the cross terms, Δ without clusters, the rank of centroids."""
    figure, ((tasks, cross), (none, ranks_)) = plt.subplots(2, 2, figsize=(8.4, 6.4), layout="constrained")
    settings = _settings(_pick(points, x_name="separation"), theorem1.STUDY)
    for position, setting in enumerate(settings):
        here = _pick(points, study=theorem1.STUDY, setting=setting, series="assumed", x_name="separation")
        style = {"color": CYCLE[position], "marker": MARKERS[position]}
        _curve(tasks, here, "tasks_violating_21", label=setting, **style)
    _near_zero_log(tasks)
    tasks.set(xlabel=SEPARATION, ylabel="share of tasks", title="Tasks nearer to A_global than to A_l (against Eq. 21)")
    for position, setting in enumerate(_settings(_pick(points, x_name="correlation"), theorem1.STUDY)):
        here = _pick(points, study=theorem1.STUDY, setting=setting)
        _curve(
            cross,
            here,
            "gap_minus_delta",
            label=setting.replace("correlation at noise", "‖E_i‖ ="),
            color=CYCLE[position],
        )
    cross.axhline(0, color=BLACK, linewidth=0.6)
    cross.set(xlabel="cosine of E_i with the cluster's shift", ylabel="gap - Δ, share of Σ‖W*‖²")
    cross.set_title("The dropped cross terms (above 0: Eq. 18 holds)")
    _curve(none, _pick(points, setting="no clusters"), "delta", label="Δ", color=BLACK)
    none.set(xlabel="clusters asked of k-means", ylabel="Δ, share of Σ‖W*‖²", title="Δ where there are no clusters")
    here = _pick(points, setting="rank of centroids")
    _curve(ranks_, here, "difference_rank", label="r_l: largest rank of a difference", color=BLUE)
    _curve(ranks_, here, "centroid_rank", label="rank of M_l", color=VERMILLION, marker="s")
    ranks_.set(xlabel="rank of the within-cluster part", ylabel="rank", title="Ranks within clusters, and of centroids")
    ranks_.locator_params(integer=True)
    for axis in (tasks, cross, none, ranks_):
        axis.legend()
    return figure


def worst_errors(points: Sequence[Point], world: str) -> Figure:
    """Theorem 2 in one world: expected worst error over the rare direction's weight, a panel for each contest."""
    here = _pick(points, study=theorem2.STUDY, setting=world)
    contests = list(dict.fromkeys(p.series for p in here if p.quantity == "difference"))
    rows_ = -(-len(contests) // 4)
    figure, axes = plt.subplots(rows_, 4, figsize=(11, 2.9 * rows_), sharex=True, sharey=True, layout="constrained")
    for axis, contest in zip(axes.flat, contests, strict=False):
        mine = _pick(here, series=contest)
        _curve(axis, mine, "global", label="global pivots", color=VERMILLION, marker="s")
        _curve(axis, mine, "local", label="cluster-local pivots", color=BLUE)
        axis.set(xscale="log", title=contest.replace(", ", "\n", 1), xlabel=WEIGHT)
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
    """§4.2 at the largest r: numerical ranks over k, a panel for each s."""
    setting = _settings(points, rank.STUDY)[-1]
    here = _pick(points, study=rank.STUDY, setting=setting)
    splits = list(dict.fromkeys(p.series for p in here))
    figure, axes = plt.subplots(1, len(splits), figsize=(9.6, 3.4), sharey=True, layout="constrained", squeeze=False)
    shown = {
        "inputs": ("directions that are read", SKY, "D", 9), "separate_b": ("a B for each expert", PURPLE, "^", 5),
        "outputs_dense": ("outputs, α by token", GREEN, "s", 9), "update": ("update, fixed α", BLUE, "o", 5),
    }  # fmt: skip
    r = int(setting.removeprefix("r="))
    for axis, series in zip(axes[0], splits, strict=True):
        mine = _pick(here, series=series)
        for quantity, (label, color, marker, size) in shown.items():
            _curve(axis, mine, quantity, label=label, color=color, marker=marker, markersize=size)
        ks = sorted({p.x for p in mine})
        axis.plot(ks, [k * r for k in ks], color=BLACK, linestyle=":", label="k·r (§4.2)")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.set(title=f"{setting}, {series}", xlabel="clusters k", xticks=ks)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_major_formatter("{x:g}")
    axes[0, 0].set_ylabel("numerical rank")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def row_clusters(points: Sequence[Point]) -> Figure:
    """§4.1: what k-means explains of each projection's rows, against both nulls, a panel for each base."""
    bases = _settings(points, rows.STUDY)
    figure, axes = plt.subplots(
        1, len(bases), figsize=(4.8 * len(bases), 3.6), sharey=True, layout="constrained", squeeze=False
    )
    shown = (("trained", BLUE, "o"), ("same_covariance", ORANGE, "^"), ("gaussian", BLACK, "s"))
    for axis, base in zip(axes[0], bases, strict=True):
        here = _pick(points, study=rows.STUDY, setting=base)
        for offset, (quantity, color, marker) in enumerate(shown):
            mine = [p for p in here if p.quantity == quantity]
            places = [p.x + 0.2 * (offset - 1) for p in mine]
            label = quantity.replace("_", " ")
            _bars(axis, mine, places, marker=marker, color=color, linestyle="none", label=label)
        axis.set_xticks(range(len(rows.PROJECTIONS)), [name.removesuffix("_proj") for name in rows.PROJECTIONS])
        axis.set(title=base, xlabel="projection", ylim=(0, None))
    axes[0, 0].set_ylabel("between-cluster share of row variance")
    axes[0, 0].legend()
    figure.suptitle("k-means on rows; bars are 95 % intervals over layers")
    return figure


def _pick(points: Sequence[Point], **where: str) -> list[Point]:
    return [p for p in points if all(getattr(p, name) == value for name, value in where.items())]


def _settings(points: Sequence[Point], study: str) -> list[str]:
    return list(dict.fromkeys(p.setting for p in points if p.study == study))


def _curve(
    axis: Axes, points: Sequence[Point], quantity: str, *, color: str, marker: str = "o", **style: str | float
) -> None:
    curve = sorted((p for p in points if p.quantity == quantity), key=lambda p: p.x)
    xs = [p.x for p in curve]
    axis.plot(xs, [p.mean for p in curve], color=color, marker=marker, **style)
    axis.fill_between(xs, [p.low for p in curve], [p.high for p in curve], color=color, alpha=0.2, linewidth=0)


def _bars(axis: Axes, points: Sequence[Point], places: Sequence[float], **style: str | float) -> None:
    errors = [[max(p.mean - p.low, 0) for p in points], [max(p.high - p.mean, 0) for p in points]]
    axis.errorbar(places, [p.mean for p in points], yerr=errors, capsize=2, **style)


def _near_zero_log(axis: Axes) -> None:
    """A logarithmic axis that reaches 0, with the separations' own ticks."""
    axis.set_xscale("symlog", base=2, linthresh=0.25)
    axis.set_xticks([0, 0.25, 0.5, 1, 2, 4, 8], ["0", "¼", "½", "1", "2", "4", "8"])
