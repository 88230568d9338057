"""The page: sound HTML that loads nothing, numbers as the files have them, what is missing named with its command.

The last tests open it in a real headless browser, where there is one.
"""

import html
import platform
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import chromium
import pytest
from made_results import make_results
from test_figures import contrast

from reproduction.records import Run, run_name
from reproduction.report.figures import Sources
from reproduction.report.page import build_page, gather_provenance, write_page
from reproduction.report.page.build import COLOURS
from reproduction.report.page.words import EMBEDDED_BADGE, PAPER_BADGE, SMALL_BADGE, prose, sections

VOID = {"meta", "input", "br", "img", "link", "hr"}
PARTS = (
    "glance", "table1", "table2", "table3", "table7", "table8", "table_controls", "counts", "costs", "hyperparameters",
    "theory", "audit", "provenance",
)  # fmt: skip

WIDER = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
CONTAINED = "e => e.closest('.scroll, nav ul, .skip, thead, p:has(> img)')"


class Outline(HTMLParser):
    """The page as a validator would walk it: every element with its attributes, and tags that do not match."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.tables: list[set[str]] = []
        self.unmatched: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.unmatched += self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "table":
            self.tables.append(set())
        if self.tables and tag in ("caption", "th"):
            self.tables[-1].add(tag)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unmatched.append(f"/{tag} at {self.getpos()}")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def made(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(*make_results(repository, tmp_path_factory.mktemp("made")), "tiny")


@pytest.fixture(scope="module")
def page(made: Sources) -> str:
    return build_page(made)


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


@pytest.fixture
def bare(made: Sources, tmp_path: Path) -> Sources:
    """A fresh clone in which nothing was run."""
    return Sources(tmp_path / "results", made.experiments, "tiny")


def text_of(page: str) -> str:
    without = re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))
    return re.sub(r"\s+", " ", html.unescape(without))


def test_tags_match_and_ids_are_unique(outline: Outline) -> None:
    assert not outline.unmatched
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 40
    assert {target["href"][1:] for target in outline.all("a")} <= set(ids)


def test_every_part_is_there_and_headings_step_down_one_at_a_time(outline: Outline) -> None:
    assert [attributes["id"] for attributes in outline.all("section")] == list(PARTS)
    assert outline.headings[0] == 1
    assert outline.headings.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in zip(outline.headings, outline.headings[1:], strict=False))


def test_every_table_has_a_caption_and_headings(outline: Outline) -> None:
    assert len(outline.tables) > 20
    assert all(parts == {"caption", "th"} for parts in outline.tables)
    assert all("scope" in attributes for attributes in outline.all("th"))


def test_every_picture_says_what_it_shows(outline: Outline) -> None:
    assert all(attributes["alt"] for attributes in outline.all("img"))
    assert all(attributes["aria-label"] and attributes["role"] == "img" for attributes in outline.all("svg"))
    assert len(outline.all("img")) == 4
    assert len(outline.all("svg")) == 8


def test_nothing_is_loaded_from_elsewhere_and_no_script_runs(page: str, outline: Outline) -> None:
    assert not outline.all("script")
    assert not outline.all("link")
    loads = [
        value for _, each in outline.elements for name, value in each.items() if name in ("src", "href", "xlink:href")
    ]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in loads)
    assert not re.search(r"url\((?!#)|@import|@font-face", page)
    assert not [name for _, each in outline.elements for name in each if name.startswith("on")]


def test_the_page_is_small_and_the_same_every_time(bare: Sources, made: Sources, page: str, tmp_path: Path) -> None:
    assert len(page.encode()) < 3_000_000
    for part in ("counts", "audit", "theory"):
        shutil.copytree(made.results / part, bare.results / part)
    size = write_page(bare, tmp_path / "a.html")
    write_page(bare, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert size == (tmp_path / "a.html").stat().st_size


def test_the_scale_is_unmistakable(page: str, bare: Sources) -> None:
    assert EMBEDDED_BADGE in text_of(page)
    paper = build_page(Sources(bare.results, bare.experiments, "paper"))
    small = build_page(Sources(bare.results, bare.experiments, "small"))
    for other, own in ((paper, PAPER_BADGE), (small, SMALL_BADGE)):
        assert EMBEDDED_BADGE not in text_of(other)
        assert own in text_of(other)
    assert "make table1 SCALE=paper" in paper


def test_a_result_stands_with_its_interval_and_the_papers_in_a_block_apart(made: Sources, page: str) -> None:
    row = next(row for row in made.table("table2") if (row["base"], row["method"]) == ("mistral", "moelora"))
    ours = re.search(r'<table id="table2-scores".*?</table>', page, re.DOTALL)[0]
    paper = re.search(r'<table id="table2-paper".*?</table>', page, re.DOTALL)[0]
    assert f"{row['mmlu']} <small>± 1.2</small>" in ours
    assert f"{row['mmlu_ci_low']}–{row['mmlu_ci_high']}" in ours
    assert "Cobble" in ours
    assert "Mistral-7B" not in ours
    assert "Mistral-7B" in paper
    printed = next(row for row in made.paper("table2") if (row["base"], row["column"]) == ("mistral", "mmlu"))
    assert f">{float(printed['value']):.1f}" in paper
    assert 'class="result of-paper"' in page[: page.index('<table id="table2-paper"')][-400:]


def test_the_controls_which_the_paper_lacks_have_no_block_of_it(page: str) -> None:
    assert 'id="table_controls-scores"' in page
    assert 'id="table_controls-paper"' not in page


def test_a_missing_cell_is_a_dash_and_the_tables_own_gaps_are_not_folded_away(made: Sources, bare: Sources) -> None:
    (bare.own / "tables").mkdir(parents=True)
    path = bare.own / "tables" / "table8.csv"
    for kind in (".csv", ".md"):
        shutil.copy(made.own / "tables" / f"table8{kind}", path.with_suffix(kind))
    header, first, *rest = path.read_text().splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True)) | {"gsm8k": "—", "gsm8k_ci_low": ""}
    path.write_text("\n".join([header, ",".join(cells.values()), *rest]))
    shown = build_page(bare)
    ours = re.search(r'<table id="table8-scores".*?</table>', shown, re.DOTALL)[0]
    assert ours.count('<td class="num">—</td>') == 1
    section = re.search(r'<section id="table8".*?</section>', shown, re.DOTALL)[0]
    outside = re.sub(r"<details>.*?</details>", "", section, flags=re.DOTALL)
    assert "never run" in outside


def test_on_a_fresh_clone_every_part_names_the_command_that_makes_it(bare: Sources) -> None:
    page = build_page(bare)
    assert not Outline(page).unmatched
    for command in ("make table1", "make table_controls", "make table4", "make table6", "make theory", "make audit"):
        assert re.search(rf"Not made yet:</strong> [^<]+ <code>{command}</code>", page), command
    assert "results/tiny/tables/table7.csv" in page
    assert "LLaMA-3-8B" in page  # the paper's numbers need no run


def test_words_from_files_are_escaped_and_markdown_lets_no_html_through(page: str) -> None:
    assert "46 % fewer &lt;script&gt;" in page
    assert "&lt;b&gt;markup&lt;/b&gt;" in page
    assert "<script" not in page
    assert "<b>" not in prose("a <b>bold</b> word\n\n<b>block</b>")


def test_the_audit_has_its_totals_every_claim_and_a_filter_that_needs_no_script(page: str) -> None:
    assert "1 cannot be decided from the tables" in text_of(page)
    claims = re.search(r'<table id="claims".*?</table>', page, re.DOTALL)[0]
    assert re.findall(r'<tr data-verdict="([\w-]+)"', claims) == [
        "does-not-hold", "holds", "cannot-be-decided-from-the-tables",
    ]  # fmt: skip
    assert '#audit:has(#verdict-holds:checked) tr[data-verdict]:not([data-verdict="holds"])' in page


def test_curves_of_the_theory_stand_in_the_part_that_names_them_and_once(page: str) -> None:
    theory = re.search(r'<section id="theory".*?</section>', page, re.DOTALL)[0]
    order = [theory.index(mark) for mark in ("Theorem 1: clustered", 'id="theory-theorem1-proof"', "The gap grows")]
    assert order == sorted(order)
    assert theory.count("<img") == 4
    assert 'alt="a point"' in theory
    assert 'id="theory-rows"' not in theory


@pytest.mark.parametrize("source", ["https://example.org/a.png", "../secret.png", "words.txt"])
def test_an_image_from_elsewhere_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds its images itself"):
        prose(f"![x]({source})", folder=tmp_path)


def test_a_long_table_is_folded_and_only_columns_of_numbers_stand_to_the_right() -> None:
    table = "| name | value |\n| ---: | --- |\n" + "| a | 1.5 |\n" * 3
    assert "<details>" not in prose(table, long=3)
    assert "<summary>Many (3 rows)</summary>" in prose(table, caption="Many", long=2)
    shown = prose(table)
    assert '<th scope="col">name</th>' in shown
    assert '<th class="num" scope="col">value</th>' in shown


def test_a_report_is_cut_at_its_headings_and_loses_title_and_tables() -> None:
    head, parts = sections("# T\n\nwords\n\n| a |\n| --- |\n\n- note\n\n## One\n\nbody\n\n## Two\nmore\n")
    assert "words" in head
    assert "- note" in head
    assert "| a |" not in head
    assert parts == [("One", "body"), ("Two", "more")]


@pytest.mark.parametrize("shade", [0, 1])
def test_words_are_legible_on_every_ground(shade: int) -> None:
    colour = {name: shades[shade] for name, shades in COLOURS.items()}
    grounds = {
        "paper": ("ink", "muted", "link", "good", "bad"), "panel": ("ink", "muted"), "badge": ("badge-ink",),
    }  # fmt: skip
    for ground, words in grounds.items():
        assert not [word for word in words if contrast(colour[word], colour[ground]) < 4.5], ground


def test_provenance_is_summed_up_from_the_runs_kept_and_read_again_without_them(bare: Sources) -> None:
    for seed in (0, 1):
        config = {"experiment": "e", "scale": "tiny", "seed": seed, "data": {"name": "d"}, "train": {}}
        config |= {"model": {"name": "m"}, "method": {"name": "lora", "kind": "peft"}}
        run = Run(bare.own / "runs" / run_name(config))
        run.start(config)
        run.finish({"device": "a laptop"})
    unfinished = Run(bare.own / "runs" / run_name(config | {"seed": 2}))
    unfinished.start(config | {"seed": 2})
    found = gather_provenance(bare)
    assert found["runs"] == 2
    assert found["values"]["python"] == {platform.python_version(): 2}
    assert found["values"]["trained on"] == {"a laptop": 2}
    assert found["first"] <= found["last"]
    shutil.rmtree(bare.own / "runs")
    assert gather_provenance(bare) == found
    assert "Environment of the runs" in build_page(bare)


@pytest.fixture(scope="module")
def saved(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Chromium]:
    if (command := chromium.find()) is None:
        pytest.skip("no Chromium here; IDLORA_CHROMIUM=<command> names one")
    with chromium.Chromium(command, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_the_page_never_scrolls_sideways_and_wide_things_scroll_in_their_own_box(browser, saved, width) -> None:
    browser.open(saved, width=width)
    assert browser.value("innerWidth") == width
    browser.value("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert browser.value("document.scrollingElement.scrollWidth") <= width
    assert browser.value(f"{WIDER}.filter(e => !({CONTAINED})(e)).map(e => e.outerHTML.slice(0, 90))") == []
    if width == 390:
        assert browser.value("document.querySelector('.scroll').scrollWidth") > width


def test_the_console_stays_silent_and_nothing_is_fetched(browser, saved) -> None:
    browser.errors.clear()
    browser.open(saved, width=1440)
    assert browser.value("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:'))") == []
    assert browser.errors == []
    browser.value("console.error('heard')")
    browser.value("1")
    assert "heard" in browser.errors.pop()


def test_the_audit_is_filtered_by_its_buttons_alone(browser, saved) -> None:
    browser.open(saved, width=1440)
    shown = "[...document.querySelectorAll('#claims tbody tr')].filter(e => e.checkVisibility()).length"
    assert browser.value(shown) == 3
    browser.value("document.getElementById('verdict-holds').click()")
    assert browser.value(shown) == 1
    browser.value("document.getElementById('kind-number').click()")
    assert browser.value(shown) == 0
    browser.value("document.getElementById('verdict-all').click()")
    assert browser.value(shown) == 1


def test_dark_follows_the_system_and_the_buttons_override_it(browser, saved) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    line = "getComputedStyle(document.querySelector('#figure-figure4 svg path[style*=hue-lora]')).stroke"
    browser.open(saved, width=1440)
    light = browser.value(ground), browser.value(line)
    browser.open(saved, width=1440, scheme="dark")
    dark = browser.value(ground), browser.value(line)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    browser.value("document.getElementById('theme-light').click()")
    assert (browser.value(ground), browser.value(line)) == light
