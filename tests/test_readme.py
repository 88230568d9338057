"""The README shows the committed reference output, and its commands exist."""

import re
from pathlib import Path

import pytest

from reproduction.report.real import listed, real_sentences


def test_the_readmes_table_is_the_committed_one(repository: Path) -> None:
    shown = re.search(r"<!-- table1 -->\n(.*?)<!-- /table1 -->", (repository / "README.md").read_text(), re.DOTALL)[1]
    committed = (repository / "results/reference/tiny/tables/table1.md").read_text()
    grid = re.search(r"^\| Model.*?(?=\n\n)", committed, re.DOTALL | re.MULTILINE)[0]
    assert shown.strip() == grid
    assert len(grid.splitlines()) == 2 + 12


def test_the_readmes_table_of_costs_is_the_committed_one(repository: Path) -> None:
    readme = (repository / "README.md").read_text()
    shown = re.search(r"<!-- benchmark -->\n(.*?)<!-- /benchmark -->", readme, re.DOTALL)
    assert shown, "README.md has no block between <!-- benchmark --> and <!-- /benchmark -->"
    committed = (repository / "results/h200/benchmark.md").read_text()
    assert shown[1].strip() == re.search(r"^\| Method.*?(?=\n\n)", committed, re.DOTALL | re.MULTILINE)[0]


def test_the_readmes_table_of_training_is_the_committed_one(repository: Path) -> None:
    shown = re.search(r"<!-- training -->\n(.*?)<!-- /training -->", (repository / "README.md").read_text(), re.DOTALL)[
        1
    ]
    committed = (repository / "results/h200/training.md").read_text()
    assert shown.strip() == re.search(r"^\| Model.*?(?=\n\n)", committed, re.DOTALL | re.MULTILINE)[0]


def test_the_readme_says_of_a_real_model_what_the_program_says(repository: Path) -> None:
    shown = re.search(r"<!-- real -->\n(.*?)<!-- /real -->", (repository / "README.md").read_text(), re.DOTALL)
    assert shown, "README.md has no block between <!-- real --> and <!-- /real -->"
    said = real_sentences(repository / "results", repository / "experiments")
    assert len(said) in range(4, 11)
    assert shown[1].strip() == listed(said)


def test_every_file_and_folder_that_the_readme_names_exists(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    named = re.findall(r"`((?:configs|idlora|scripts|experiments|results|tests)/[\w/.]+)", text)
    assert len(named) > 10
    assert not [name for name in named if not (repository / name).exists()]


def test_every_make_target_that_the_readme_names_is_in_the_makefile(repository: Path) -> None:
    targets = set(re.findall(r"(?:`|^    )make ([a-z]\w*)", (repository / "README.md").read_text(), re.MULTILINE))
    assert targets >= {"table1", "test"}
    makefile = (repository / "Makefile").read_text()
    rules = {name for rule in re.findall(r"^([a-z][\w ]*):", makefile, re.MULTILINE) for name in rule.split()}
    assert targets <= rules


def test_no_time_is_left_open(repository: Path) -> None:
    assert not re.search(r"TIME[A-Z0-9]", (repository / "README.md").read_text())


@pytest.mark.parametrize("name", ["trainer", "evaluation"])
def test_the_page_on_speed_shows_the_committed_measurements(name, repository):
    page = (repository / "docs" / "speed.md").read_text()
    shown = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", page, re.DOTALL)[1]
    assert shown in (repository / "results" / "h100" / f"{name}.md").read_text()
    assert shown.count("\n") > 5
