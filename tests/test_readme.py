"""The README shows the committed reference output, and its commands exist."""

import re
from pathlib import Path

import pytest

from reproduction.report.real import listed, real_sentences


def shown(page: Path, name: str) -> str:
    """What stands between a page's marks <!-- name --> and <!-- /name -->."""
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", page.read_text(), re.DOTALL)[1].strip()


@pytest.mark.parametrize(
    ("page", "name", "source"),
    [
        ("README.md", "table1", "reference/tiny/tables/table1.md"),
        ("README.md", "benchmark", "h200/benchmark.md"),
        ("README.md", "training", "h200/training.md"),
        ("docs/speed.md", "trainer", "h100/trainer.md"),
        ("docs/speed.md", "evaluation", "h100/evaluation.md"),
    ],
)
def test_the_tables_of_the_pages_are_the_committed_ones(page, name, source, repository):
    table = shown(repository / page, name)
    assert table in (repository / "results" / source).read_text()
    assert table.count("\n") > 3


def test_the_readme_says_of_a_real_model_what_the_program_says(repository):
    sentences = real_sentences(repository / "results", repository / "experiments")
    assert shown(repository / "README.md", "real") == listed(sentences).strip()


def test_every_file_and_make_target_that_the_readme_names_exists(repository):
    text = (repository / "README.md").read_text()
    named = re.findall(r"`((?:configs|idlora|scripts|experiments|results|tests)/[\w/.]+)", text)
    assert len(named) > 10
    assert not [name for name in named if not (repository / name).exists()]
    targets = set(re.findall(r"(?:`|^    )make ([a-z]\w*)", text, re.MULTILINE))
    rules = re.findall(r"^([a-z][\w ]*):", (repository / "Makefile").read_text(), re.MULTILINE)
    assert {"table1", "test"} <= targets <= {name for rule in rules for name in rule.split()}
