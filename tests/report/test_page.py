"""Report page: three answers on the first screen, valid HTML without external resources, same numbers as the files.

The last tests open it in a headless browser, if there is one.
"""

import csv
import html
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import chromium
import pytest
from made_results import make_results, write
from test_figures import contrast

from reproduction.records import Run, run_name, write_json
from reproduction.report.figures import Absent, Sources
from reproduction.report.page import build_page, gather_provenance, write_page
from reproduction.report.page.build import COLOURS
from reproduction.report.page.exact import claims_card, costs_card
from reproduction.report.page.markdown import prose
from reproduction.report.page.real import PretrainedModel
from reproduction.report.reference import reference_folder

VOID = {"meta", "input", "br", "img", "link", "hr"}
PARTS = ("real", "rate", "rows", "budget", "claims", "costs", "counts", "theory", "embedded", "provenance")

WIDER = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
SMALL = (
    "[...document.querySelectorAll('body *')].filter(e => !e.closest('svg, style') && parseFloat(getComputedStyle(e)"
    ".fontSize) < 15 && [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())).map(e => e.outerHTML)[0]"
)
CONTAINED = "e => e.closest('.scroll, nav ul, .skip, thead, p:has(> img)')"


class Outline(HTMLParser):
    """Parser that collects every element with its attributes, and mismatched tags."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[set[str]] = []
        self.unmatched: list[str] = []
        self.unfolded: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.unmatched += self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append(set())
            if "details" not in self._open:
                self.unfolded.append(self.get_starttag_text())
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
    """Complete results and the committed reference of the real model; one method of Table 2 has a column at chance, and
    one cell of Table 8 is missing.
    """
    sources = Sources(*make_results(repository, tmp_path_factory.mktemp("made")), "tiny")
    real = reference_folder(sources.results, "small")
    real.parent.mkdir()
    real.symlink_to(reference_folder(repository / "results", "small"))
    rows = [row | {"mmlu_floor": "chance" if row["method"] == "dora" else ""} for row in sources.table("table2")]
    write(sources.own / "tables" / "table2.csv", rows)
    first, *rest = sources.table("table8")
    write(sources.own / "tables" / "table8.csv", [first | {"gsm8k": "—", "gsm8k_ci_low": ""}, *rest])
    return sources


@pytest.fixture(scope="module")
def page(made: Sources) -> str:
    return build_page(made)


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


@pytest.fixture
def bare(made: Sources, tmp_path: Path) -> Sources:
    """A fresh clone without any runs."""
    return Sources(tmp_path / "results", made.experiments, "tiny")


def text_of(page: str) -> str:
    without = re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))
    return re.sub(r"\s+", " ", html.unescape(without))


def element(page: str, tag: str, id: str) -> str:
    return re.search(rf'<{tag} id="{id}".*?</{tag}>', page, re.DOTALL)[0]


def card(page: str, id: str) -> str:
    """Return the words of a card."""
    return text_of(re.search(rf'aria-labelledby="card-{id}".*?</article>', page, re.DOTALL)[0])


def test_the_html_is_sound_and_each_question_follows_in_order(page: str, outline: Outline) -> None:
    assert not outline.unmatched
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 40
    assert {target["href"][1:] for target in outline.all("a")} <= set(ids)
    assert [attributes["id"] for attributes in outline.all("section")] == list(PARTS)
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert page.count('<div class="answer">') == 3 + len(PARTS) - 1
    assert page.count("Not made yet") == 2, "pivots and runs were not made"


def test_the_first_card_says_of_the_real_model_what_the_committed_tables_say(page: str, repository: Path) -> None:
    folder, words = reference_folder(repository / "results", "small"), card(page, "real")
    rows = {(row["base"], row["method"]): row for row in csv.DictReader((folder / "tables/table2.csv").open())}
    blocks = ("llama3", "llama3_paper_rate")
    losses = {base: [float(rows[base, method]["loss"]) for method in ("lora", "idlora")] for base in blocks}
    assert all(f"{loss:.4f}" in words for both in losses.values() for loss in both)
    ahead = {base: lora < idlora for base, (lora, idlora) in losses.items()}
    assert ("LoRA is ahead by" in words and "Not on" in words) is ahead["llama3"]
    assert ("the order is reversed" in words) is (len(set(ahead.values())) == 2)
    counts = [int(rows["llama3", method]["parameters_trainable"]) for method in ("lora", "idlora")]
    assert "● LoRA trains {:.2f}M ◆ ID-LoRA {:.2f}M".format(*(count / 1e6 for count in counts)) in words
    assert "Committed reference: SmolLM2-135M-Instruct, 3 seeds" in words


def test_the_other_cards_count_the_audits_verdicts_and_compare_the_measured_costs(repository: Path) -> None:
    sources = Sources(repository / "results", repository / "experiments", "tiny")
    claims, costs = (text_of(block["html"]) for block, _ in (claims_card(sources), costs_card(sources)))
    with (repository / "results/audit/audit.csv").open(encoding="utf-8") as file:
        verdicts = [row["verdict"] for row in csv.DictReader(file)]
    counts = [verdicts.count(each) for each in ("holds", "does not hold", "cannot be decided from the tables")]
    otherwise = int(re.search(r"\((\d+) of these", claims)[1])
    found = [int(each) for each in re.findall(r"\d+", claims)]
    assert found == [counts[0], len(verdicts), counts[1], otherwise, counts[2]]
    assert 0 < otherwise < counts[1]
    with (repository / "results/h200/benchmark.csv").open(encoding="utf-8") as file:
        rows = {(row["scenario"], row["variant"]): row for row in csv.DictReader(file)}

    def above(scenario: str, quantity: str) -> int:
        own, lora = (float(rows[scenario, variant][quantity]) for variant in ("idlora", "lora"))
        return round(100 * (own / lora - 1))

    settings = ("train_compiled", "train_eager", "train_dropout_compiled", "train_checkpointed")
    time, memory = (
        sorted(above(scenario, quantity) for scenario in settings)
        for quantity in ("median_ms", "peak_above_weights_mib")
    )
    assert f"{-time[0]} % less to {time[-1]} % more time a training step than LoRA" in costs
    assert f"{-memory[0]} % less to {memory[-1]} % more memory" in costs


def test_a_card_without_data_names_the_command_that_makes_them(bare: Sources) -> None:
    page = build_page(bare)
    for id, command in {
        "real": "make reference SCALE=small",
        "claims": "make audit",
        "costs": "scripts/benchmark",
    }.items():
        assert "Not made yet" in card(page, id)
        assert command in card(page, id)
    with pytest.raises(Absent):
        PretrainedModel(bare).card()


def test_every_table_is_folded_behind_its_number_of_rows_and_says_what_it_shows(page: str, outline: Outline) -> None:
    assert outline.unfolded == []
    assert len(outline.tables) > 20
    assert all(parts == {"caption", "th"} for parts in outline.tables)
    assert all("scope" in attributes for attributes in outline.all("th"))
    shown = re.search(r"<summary>Table6 <small>(\d+) rows?</small>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    assert int(shown[1]) == shown[2].count("<tr>") == 1
    assert page.count("<summary>Every claim <small>3 rows") == 1
    assert len(outline.all("img")) == 4
    assert all(attributes["alt"] for attributes in outline.all("img"))
    assert len(outline.all("svg")) == 9
    assert all(attributes["aria-label"] and attributes["role"] == "img" for attributes in outline.all("svg"))


def test_nothing_is_loaded_from_elsewhere_and_no_script_runs(page: str, outline: Outline) -> None:
    assert not outline.all("script")
    assert not outline.all("link")
    names = ("src", "href", "xlink:href")
    loads = [value for _, each in outline.elements for name, value in each.items() if name in names]
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


def test_each_kind_of_scale_has_its_own_status_and_commands(bare: Sources) -> None:
    pages = {scale: build_page(Sources(bare.results, bare.experiments, scale)) for scale in ("tiny", "small", "paper")}
    lines = {re.search(r'<p class="status">.*?</p>', page, re.DOTALL)[0].split(":")[1] for page in pages.values()}
    assert len(lines) == 3
    assert 'id="paper-title"' in pages["paper"]
    assert "make table1 SCALE=paper" in element(pages["paper"], "section", "paper")
    assert "make table3 SCALE=small" in element(pages["small"], "section", "rows")
    page = pages["tiny"]  # a fresh clone
    assert not Outline(page).unmatched
    for command in ("make table1", "make table_controls", "make table4", "make table6", "make theory", "make audit"):
        assert re.search(rf"Not made yet:</strong> [^<]+ <code>{command}</code>", page), command
    assert "results/tiny/tables/table7.csv" in page
    assert "LLaMA-3-8B" in page, "the paper's numbers need no run"


def test_a_result_stands_with_its_interval_and_the_papers_in_a_block_apart(made: Sources, page: str) -> None:
    row = next(row for row in made.table("table2") if (row["base"], row["method"]) == ("mistral", "moelora"))
    ours, paper = element(page, "table", "table2-scores"), element(page, "table", "table2-paper")
    assert f"{row['mmlu']} <small>± 1.2</small>" in ours
    assert f"{row['mmlu_ci_low']}–{row['mmlu_ci_high']}<" in ours
    assert ours.count("°") == 2, "dora on two bases, whose interval holds chance"
    assert ("Cobble" in ours, "Mistral-7B" in ours, "Mistral-7B" in paper) == (True, False, True)
    printed = next(row for row in made.paper("table2") if (row["base"], row["column"]) == ("mistral", "mmlu"))
    assert f">{float(printed['value']):.1f}" in paper
    assert 'class="result of-paper"' in page[: page.index('<table id="table2-paper"')][-400:]
    assert 'id="table_controls-scores"' in page
    assert 'id="table_controls-paper"' not in page, "the paper has no such table"


def test_a_missing_cell_is_a_dash_and_the_tables_own_gaps_are_not_folded_away(page: str) -> None:
    assert element(page, "table", "table8-scores").count('<td class="num">—</td>') == 1
    embedded = element(page, "section", "embedded")
    before, _, after = embedded.partition("never run")
    assert after
    assert before.count("<details>") == before.count("</details>")


def test_words_from_files_are_escaped_and_markdown_lets_no_html_through(page: str) -> None:
    assert "46 % fewer &lt;script&gt;" in page
    assert "&lt;b&gt;markup&lt;/b&gt;" in page
    assert "<script" not in page
    assert "<b>" not in prose("a <b>bold</b> word\n\n<b>block</b>")


def test_the_audit_has_every_claim_and_a_filter_that_needs_no_script(page: str) -> None:
    assert "1 of 3 claims hold by the paper's own tables; 1 do not as worded (" in text_of(page)
    assert re.findall(r'<tr data-verdict="([\w-]+)"', element(page, "table", "every-claim")) == [
        "does-not-hold", "holds", "cannot-be-decided-from-the-tables",
    ]  # fmt: skip
    assert '#claims:has(#verdict-holds:checked) tr[data-verdict]:not([data-verdict="holds"])' in page


def test_counts_and_theorems_are_summed_up_from_their_reports(page: str) -> None:
    assert "32 of 36. Numbers that agree with the paper's to the printed digit: Table6, 8 of 9;" in text_of(page)
    theory = text_of(element(page, "section", "theory"))
    assert "Not as stated. In simulation “Error ≤ error - Δ” holds throughout in 1 of 2 settings." in theory
    assert "Theorem 1: clustered 1 hold 1 hold in part" in theory


def test_the_claims_have_a_column_for_the_real_model_where_it_says_something(bare: Sources, made: Sources) -> None:
    shutil.copytree(made.results / "audit", bare.results / "audit")
    path = bare.results / "audit" / "audit.csv"
    rows = [row | {"real": "ahead", "real_verdict": "holds"} for row in bare.rows(path, command="")]
    assert "on a real model" not in build_page(bare)
    write(path, rows)
    claims = element(build_page(bare), "table", "every-claim")
    assert claims.count("<td>") == 5 * claims.count("<tr ")


def test_curves_of_the_theory_stand_in_the_part_that_names_them_and_once(page: str) -> None:
    theory = element(page, "section", "theory")
    order = [theory.index(mark) for mark in ("<summary>Theorem 1", 'id="theory-theorem1-proof"', "The gap grows")]
    assert order == sorted(order)
    assert theory.count("<img") == 4
    assert 'id="theory-rows"' not in theory, "its words place it"


@pytest.mark.parametrize("shade", [0, 1])
def test_words_are_legible_on_every_ground(shade: int) -> None:
    colour = {name: shades[shade] for name, shades in COLOURS.items()}
    grounds = {"paper": ("ink", "muted", "accent"), "panel": ("ink", "muted")}
    for ground, words in grounds.items():
        assert not [word for word in words if contrast(colour[word], colour[ground]) < 4.5], ground


def test_provenance_is_summed_up_from_the_runs_kept_and_read_again_without_them(bare: Sources) -> None:
    for seed in (0, 1, 2):
        config = {"experiment": "e", "scale": "tiny", "seed": seed, "data": {"name": "d"}, "train": {}}
        config |= {"model": {"name": "m"}, "method": {"name": "lora", "kind": "peft"}}
        run = Run(bare.own / "runs" / run_name(config))
        run.start(config)
        if seed < 2:  # the last is unfinished
            run.finish({"device": "a laptop"})
            git = {"commit": "0badcafe" * 5, "dirty": bool(seed)}
            write_json(run.folder / "provenance.json", run.provenance | {"git": git})
    found = gather_provenance(bare)
    assert found["values"]["git commit"] == {"0badcafe0bad": 1, "0badcafe0bad with local changes": 1}
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


@pytest.fixture
def place(saved: Path, repository: Path) -> Callable[[str], Path]:
    """Return the made page, or the committed one of a scale."""
    return lambda name: saved if name == "made" else reference_folder(repository / "results", name) / "report.html"


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
@pytest.mark.parametrize("name", ["made", "tiny", "small"])
def test_the_first_screen_holds_the_three_answers(browser, place, name, width, height) -> None:
    browser.open(place(name), width=width, height=height)
    ends = browser.value("[...document.querySelectorAll('.card .answer')].map(e => e.getBoundingClientRect().bottom)")
    assert len(ends) == 3
    assert max(ends) <= height
    assert browser.value("document.querySelectorAll('.card .plot').length") == 3


@pytest.mark.parametrize(
    ("name", "width"), [*(("made", width) for width in (320, 390, 768, 1440)), ("tiny", 390), ("small", 390)]
)
def test_the_page_never_scrolls_sideways_and_no_word_is_small(browser, place, name, width) -> None:
    browser.open(place(name), width=width)
    browser.value("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert browser.value("innerWidth") == width
    assert browser.value("document.scrollingElement.scrollWidth") <= width
    assert browser.value(f"{WIDER}.filter(e => !({CONTAINED})(e)).map(e => e.outerHTML.slice(0, 90))") == []
    assert browser.value(SMALL) is None


def test_the_audit_is_filtered_by_its_buttons_alone_and_nothing_is_fetched(browser, saved) -> None:
    browser.errors.clear()
    browser.open(saved, width=1440)
    browser.value("document.querySelectorAll('details').forEach(e => { e.open = true })")
    shown = "[...document.querySelectorAll('#every-claim tbody tr')].filter(e => e.checkVisibility()).length"
    for button, rows in ((None, 3), ("verdict-holds", 1), ("kind-number", 0), ("verdict-all", 1)):
        if button:
            browser.value(f"document.getElementById('{button}').click()")
        assert browser.value(shown) == rows, button
    assert browser.value("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:'))") == []
    assert browser.errors == []


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
