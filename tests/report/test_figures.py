"""Figures: drawn is what the files say, ours and the paper's never on one axis, in colours that all tell apart."""

import itertools
import re
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
from reproduction.report.figures import FIGURES, Absent, Plate, Sources, draw_figures, figures_of
from reproduction.report.figures.counts import printed_count
from reproduction.report.figures.style import inline_svg, thousands
from reproduction.report.figures.sweeps import CLUSTERS

RATES = ("rates.png", "rates.pdf", "rates.csv", "rates.md")
"""Made of the committed trials, which every clone has."""

MAIN = ("base", "fft", "lora", "dora", "hydralora", "moelora", "idlora")

# How a reader with each dichromacy sees linear RGB (Machado, Oliveira, Fernandes 2009, severity 1).
VISION = {
    "full colour": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.fixture(scope="module")
def made(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Every result there is, made up."""
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
    """The y values of the marks of an axes."""
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
def test_every_hue_stands_out_from_its_ground(shade: str, ground: str) -> None:
    faint = {name: contrast(getattr(hue, shade), ground) for name, hue in HUES.items()}
    assert not {name: found for name, found in faint.items() if found < 3}
    assert contrast("#777777", PAPER) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("shade", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_the_methods_of_tables_1_and_2_are_told_apart_by_every_reader(vision: str, shade: str) -> None:
    seen = {name: oklab(np.array(VISION[vision]) @ linear(getattr(HUES[name], shade))) for name in MAIN}
    apart = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(MAIN, 2)}
    assert min(apart.values()) > 9, min(apart, key=apart.get)


@pytest.mark.parametrize("vision", VISION)
def test_curves_that_are_no_method_are_told_apart_and_have_no_methods_colour(vision: str) -> None:
    seen = {colour: oklab(np.array(VISION[vision]) @ linear(colour)) for colour, _ in NEUTRAL}
    assert min(np.linalg.norm(seen[one] - seen[other]) for one, other in itertools.combinations(seen, 2)) > 9
    assert len({marker for _, marker in NEUTRAL}) == len(NEUTRAL)
    assert all(contrast(colour, PAPER) > 3 for colour in seen)
    assert not seen.keys() & {hue.light for hue in HUES.values()}


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


def test_a_figure_of_counts_and_one_of_a_scale_go_to_their_own_folders(own: Sources) -> None:
    written = [path for name in ("figure1", "table8") for path in draw_figures(own, name)[0]]
    stems = {path.relative_to(own.results).with_suffix("").as_posix() for path in written}
    assert stems == {"counts/figures/figure1c", "tiny/figures/table8"}
    assert {path.suffix for path in written} == {".png", ".pdf"}


def test_asked_for_all_figures_those_without_data_are_named_and_the_rest_is_drawn(own: Sources) -> None:
    shutil.rmtree(own.own)
    written, absent = draw_figures(own)
    assert [path.name for path in written] == ["figure1c.png", "figure1c.pdf", "figure3.png", "figure3.pdf", *RATES]
    assert len(absent) == len(figures_of(own)) - 3


def test_ours_and_the_papers_numbers_never_share_an_axis(made: Sources) -> None:
    ours = {float(row["gsm8k"]) for row in made.table("table7") if row["method"] != "base"}
    paper = {float(row["value"]) for row in made.paper("table7") if row["column"] == "gsm8k"}
    assert not ours & paper
    figure = drawn(FIGURES["figure4"](made))
    first, second = figure.subfigs
    assert heights(first.axes[0]) == ours
    assert heights(second.axes[0]) == paper
    assert to_hex(second.get_facecolor()) == PANEL != to_hex(first.get_facecolor())


def test_figure_4_is_plotted_against_counts_with_the_intervals_of_the_table(made: Sources) -> None:
    figure = drawn(FIGURES["figure4"](made))
    axes = figure.subfigs[0].axes[0]
    counts = {float(row["parameters_trainable"]) for row in made.table("table7") if row["method"] != "base"}
    marks = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert {x for line in marks for x in line.get_xdata()} == counts
    row = next(row for row in made.table("table7") if row["method"] == "idlora")
    bar = [float(row["gsm8k_ci_low"]), float(row["gsm8k_ci_high"])]
    assert bar in [list(line.get_ydata()) for line in axes.lines]
    assert {line.get_color() for line in marks} == {look("lora").colour, look("idlora").colour}


def test_a_sweep_draws_its_unpaired_bars_pale_and_sends_to_the_paired_differences(made: Sources) -> None:
    for name, file in (("figure4", "budgets"), ("table8", "clusters")):
        ours, paper = drawn(FIGURES[name](made)).subfigs
        bars = [line for axes in ours.axes for line in axes.lines if line.get_marker() == "None"]
        assert bars
        assert all(bar.get_alpha() < 0.5 and bar.get_linewidth() < 1 for bar in bars)
        assert ours.get_supxlabel().endswith(f"one value; differences on the same items: tables/{file}.md")
        assert not paper.get_supxlabel()


def test_the_sweep_over_clusters_puts_the_default_at_the_number_of_its_config(made: Sources, repository: Path) -> None:
    method = yaml.safe_load((repository / "configs/method/idlora.yaml").read_text())
    assert method["arguments"]["num_clusters"] == CLUSTERS
    axes = drawn(FIGURES["table8"](made)).subfigs[0].axes[0]
    assert list(axes.lines[0].get_xdata()) == [2, 4, 6, 8]


def test_an_axis_of_percent_shows_ten_points_at_least(made: Sources) -> None:
    for axes in drawn(FIGURES["table8"](made)).subfigs[1].axes:
        low, high = axes.get_ylim()
        assert high - low >= 10 - 1e-9


def test_the_rings_of_figure_1_stand_at_the_counts_that_the_paper_prints(made: Sources) -> None:
    right = drawn(FIGURES["figure1"](made)).axes[1]
    rings = next(line for line in right.lines if line.get_markerfacecolor() == "none")
    printed = sorted((int(row["rank"]), printed_count(row["printed"])) for row in made.paper("table6"))
    assert sorted(zip(rings.get_xdata(), rings.get_ydata(), strict=True)) == printed
    assert (128, 1.3e9) in printed


def test_a_count_that_cannot_be_read_is_refused_in_words() -> None:
    assert printed_count("10.4M") == 10.4e6
    with pytest.raises(ValueError, match=r"'about 5' is no count like 21\.0M"):
        printed_count("about 5")


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
    (own.results / "counts" / "figure1c.csv").unlink()
    written, absent = draw_figures(own, "figure1")
    assert (written, [each.command for each in absent]) == ([], ["make table6"])


def test_a_figure_that_is_none_is_refused_with_the_names_of_those_there_are(made: Sources) -> None:
    with pytest.raises(ValueError, match=r"there is no figure=figure2; the figures are figure1, figure3, figure4"):
        draw_figures(made, "figure2")


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


def test_in_the_page_ids_do_not_depend_on_what_matplotlib_calls_them() -> None:
    def document(clip: str, mark: str) -> str:
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt" '
            f'height="9pt"><defs><path id="{mark}"/><clipPath id="{clip}"/></defs>'
            f'<g clip-path="url(#{clip})"><use xlink:href="#{mark}"/></g></svg>'
        )

    shown = inline_svg(document("p0a1b", "m2c3d"), name="x", alt="")
    assert shown == inline_svg(document("pffff", "meeee"), name="x", alt="")
    assert re.findall(r'id="([^"]+)"', shown) == ["x-1", "x-0"]
    assert 'url(#x-0)"' in shown
    assert 'href="#x-1"' in shown


def test_in_the_page_the_last_bits_of_a_place_do_not_show() -> None:
    def document(place: str) -> str:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt"><text x="{place}">1</text></svg>'

    shown = {inline_svg(document(place), name="x", alt="") for place in ("741.993499", "741.993500", "741.993501")}
    assert len(shown) == 1
    assert 'x="741.994"' in shown.pop()
    assert 'x="7.25"' in inline_svg(document("7.25"), name="x", alt="")


def test_counts_are_spelled_as_they_are_read() -> None:
    assert [thousands(value) for value in (43_008, 49_020_928, 335_544_320, 1.3e9, 12)] == [
        "43K", "49M", "336M", "1.3B", "12",
    ]  # fmt: skip
