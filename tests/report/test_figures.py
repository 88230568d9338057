"""Figures: same values as the files, separate axes for ours and the paper's, colours that everyone can distinguish."""

import itertools
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import yaml
from made_results import make_results, write
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from reproduction.palette import HUES, INK, NEUTRAL, NIGHT, PANEL, PAPER, RC, look
from reproduction.paths import EXPERIMENTS
from reproduction.report import load_grid
from reproduction.report.figures import FIGURES, Absent, Plate, Sources, draw_figures, figures_of
from reproduction.report.figures.counts import printed_count
from reproduction.report.figures.style import inline_svg, thousands
from reproduction.report.figures.sweeps import CLUSTERS

MAIN = load_grid(EXPERIMENTS / "table2").methods

# Simulation of each dichromacy in linear RGB (Machado, Oliveira, Fernandes 2009, severity 1).
VISION = {
    "full colour": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.fixture(scope="module")
def made(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """A complete set of made-up results."""
    return Sources(*make_results(repository, tmp_path_factory.mktemp("made")), "tiny")


@pytest.fixture
def own(made: Sources, tmp_path: Path) -> Sources:
    """A copy that a test may damage."""
    shutil.copytree(made.results, tmp_path / "results")
    return Sources(tmp_path / "results", made.experiments, "tiny")


def drawn(plate: Plate) -> Figure:
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=plate.size)
        FigureCanvasAgg(figure)
        plate.draw(figure)
    return figure


def heights(axes) -> set[float]:
    """Return the y values of the marks of an axes."""
    return {float(y) for line in axes.lines if line.get_marker() not in ("None", "") for y in line.get_ydata()}


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb: np.ndarray) -> np.ndarray:
    cones = np.cbrt(
        np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]) @ rgb.clip(0)
    )
    return 100 * np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]) @ cones


@pytest.mark.parametrize(("shade", "ground"), [("light", PAPER), ("dark", NIGHT)])
def test_every_hue_stands_out_from_its_ground_and_methods_are_told_apart_by_every_reader(shade, ground):
    assert contrast("#777777", PAPER) == pytest.approx(4.48, abs=0.01)
    assert min(contrast(getattr(hue, shade), ground) for hue in HUES.values()) > 3
    for vision in VISION.values():
        for colours in ([getattr(HUES[name], shade) for name in MAIN], [colour for colour, _ in NEUTRAL]):
            seen = [oklab(np.array(vision) @ linear(colour)) for colour in colours]
            assert min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)) > 9
    assert all(contrast(colour, PAPER) > 3 for colour, _ in NEUTRAL)
    assert not {colour for colour, _ in NEUTRAL} & {hue.light for hue in HUES.values()}


def test_every_method_of_the_project_has_a_look_and_only_steps_of_a_sweep_share_one(repository: Path) -> None:
    methods = sorted(path.stem for path in (repository / "configs/method").glob("*.yaml"))
    steps = ("_sixteenth", "_eighth", "_quarter", "_half", "_double", "_k2", "_k3", "_k6", "_k8")
    looks = {method: look(method) for method in methods if not method.endswith(steps)}
    assert len(set(looks.values())) == len(looks) > 6
    assert look("idlora_k6") == look("idlora_half_k6") == look("idlora") != look("lora_half") == look("lora")
    assert look("unheard_of").hue == "other"


def test_a_figure_is_written_as_png_and_pdf_with_the_same_bytes_every_time(made: Sources, tmp_path: Path) -> None:
    first = FIGURES["figure1"](made).save(tmp_path / "a")
    again = FIGURES["figure1"](made).save(tmp_path / "b")
    assert [path.name for path in first] == ["figure1c.png", "figure1c.pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert first[0].read_bytes()[:4] == b"\x89PNG"
    assert first[1].read_bytes()[:5] == b"%PDF-"


def test_ours_and_the_papers_numbers_never_share_an_axis(made: Sources) -> None:
    ours = {float(row["gsm8k"]) for row in made.table("table7") if row["method"] != "base"}
    paper = {float(row["value"]) for row in made.paper("table7") if row["column"] == "gsm8k"}
    assert not ours & paper
    figure = drawn(FIGURES["figure4"](made))
    first, second = figure.subfigs
    assert heights(first.axes[0]) == ours
    assert heights(second.axes[0]) == paper
    assert to_hex(second.get_facecolor()) == PANEL != to_hex(first.get_facecolor())
    axes = first.axes[0]
    counts = {float(row["parameters_trainable"]) for row in made.table("table7") if row["method"] != "base"}
    marks = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert {x for line in marks for x in line.get_xdata()} == counts
    assert {line.get_color() for line in marks} == {look("lora").colour, look("idlora").colour}
    row = next(row for row in made.table("table7") if row["method"] == "idlora")
    bar = [float(row["gsm8k_ci_low"]), float(row["gsm8k_ci_high"])]
    assert bar in [list(line.get_ydata()) for line in axes.lines]


def test_the_sweep_over_clusters_has_the_default_at_its_number_and_axes_of_ten_points(
    made: Sources, repository
) -> None:
    method = yaml.safe_load((repository / "configs/method/idlora.yaml").read_text())
    assert method["arguments"]["num_clusters"] == CLUSTERS
    ours, paper = drawn(FIGURES["table8"](made)).subfigs
    assert list(ours.axes[0].lines[0].get_xdata()) == [2, 4, 6, 8]
    assert ours.get_supxlabel().endswith("tables/clusters.md")
    assert all(axes.get_ylim()[1] - axes.get_ylim()[0] >= 10 - 1e-9 for axes in paper.axes)


def test_the_rings_of_figure_1_stand_at_the_counts_that_the_paper_prints(made: Sources) -> None:
    right = drawn(FIGURES["figure1"](made)).axes[1]
    rings = next(line for line in right.lines if line.get_markerfacecolor() == "none")
    printed = sorted((int(row["rank"]), printed_count(row["printed"])) for row in made.paper("table6"))
    assert sorted(zip(rings.get_xdata(), rings.get_ydata(), strict=True)) == printed
    assert (128, 1.3e9) in printed


def test_a_mark_is_hollow_exactly_where_zero_lies_inside_its_widest_interval(own: Sources) -> None:
    rows = own.tests("table3")
    tests = [row for row in rows if row["column"] == "gsm8k" and row["method"] != "base"]
    tests[0] |= {"difference": "1", "ci_low": "0.5", "ci_high": "1.5", "seeds_ci_low": "-1", "seeds_ci_high": "3"}
    tests[1] |= {"difference": "-1", "seeds_ci_low": "-2", "seeds_ci_high": "-0.5"}
    write(own.own / "significance" / "table3.csv", rows)
    axes = drawn(FIGURES["table3"](own)).axes[0]
    hollow = {float(row["difference"]): float(row["seeds_ci_low"]) <= 0 <= float(row["seeds_ci_high"]) for row in tests}
    found = {
        float(np.ravel(line.get_xdata())[0]): to_hex(line.get_markerfacecolor()) == PAPER
        for line in axes.lines
        if line.get_marker() not in ("None", "")
    }
    assert found == hollow
    assert set(hollow.values()) == {True, False}


def test_with_one_seed_the_interval_over_items_decides_and_the_caption_says_so(own: Sources) -> None:
    one = {"seeds_ci_low": "", "seeds_ci_high": "", "seeds": "1"}
    rows = [row | one for row in own.tests("table3") if row["method"] != "base"]
    write(own.own / "significance" / "table3.csv", rows)
    plate = FIGURES["table3"](own)
    assert "thin over seeds" not in plate.caption
    assert "untuned" not in plate.caption, "it was not tested"
    (key,) = drawn(plate).subfigs[0].legends
    assert [text.get_text() for text in key.get_texts()] == ["95 % interval over items", "hollow: zero inside the bar"]
    assert "1 seed a method" in plate.caption


def test_a_figure_without_its_data_names_the_file_and_the_command(own: Sources) -> None:
    (own.own / "tables" / "table7.csv").unlink()
    with pytest.raises(Absent, match=r"results/tiny/tables/table7\.csv is not there; `make table7` makes it"):
        FIGURES["figure4"](own)
    shutil.rmtree(own.own)
    (own.results / "counts" / "figure1c.csv").unlink()
    written, absent = draw_figures(own)
    assert {path.relative_to(own.results).as_posix() for path in written} == {
        *(f"h200/figures/figure3.{kind}" for kind in ("png", "pdf")),  # of no scale
        *(f"tiny/figures/rates.{kind}" for kind in ("png", "pdf")),  # of trials that every clone has
        *(f"tiny/tables/rates.{kind}" for kind in ("csv", "md")),
    }
    assert len(absent) == len(figures_of(own)) - 2
    assert "make table6" in [each.command for each in absent]
    with pytest.raises(ValueError, match=r"figure=figure2; the figures are figure1, figure3, figure4"):
        draw_figures(own, "figure2")


def test_in_the_page_a_colour_is_a_variable_and_one_outside_the_palette_is_refused() -> None:
    def document(colour: str) -> str:
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt" viewBox="0 0 9 9">'
            f'<metadata/><g id="axes_1"><path style="fill: {colour}"/></g></svg>'
        )

    shown = inline_svg(document(INK), name="x", alt="a line")
    assert "fill: var(--ink)" in shown
    assert 'aria-label="a line"' in shown
    assert "metadata" not in shown
    assert "axes_1" not in shown
    with pytest.raises(ValueError, match="draws with #123456"):
        inline_svg(document("#123456"), name="x", alt="")


def test_in_the_page_the_last_bits_of_a_place_do_not_show() -> None:
    def document(place: str) -> str:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt"><text x="{place}">1</text></svg>'

    shown = {inline_svg(document(place), name="x", alt="") for place in ("741.984999", "741.985000", "741.985001")}
    assert len(shown) == 1
    assert 'x="741.99"' in shown.pop()
    assert 'x="7.25"' in inline_svg(document("7.25"), name="x", alt="")


def test_counts_are_spelled_as_they_are_read() -> None:
    assert [thousands(value) for value in (43_008, 49_020_928, 335_544_320, 1.3e9, 12)] == [
        "43K", "49M", "336M", "1.3B", "12",
    ]  # fmt: skip
