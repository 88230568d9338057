"""Markdown on the page: images, aligned columns, and a report's parts."""

import re
from pathlib import Path

import pytest

from reproduction.report.page.markdown import prose, sections


@pytest.mark.parametrize("source", ["https://example.org/a.png", "../secret.png", "words.txt"])
def test_an_image_from_elsewhere_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(source)):
        prose(f"![x]({source})", folder=tmp_path)


def test_only_columns_of_numbers_stand_to_the_right() -> None:
    table = "| name | value |\n| ---: | --- |\n" + "| a | 1.5 |\n" * 3
    assert '<th scope="col">name</th>' in prose(table)
    assert '<th class="num" scope="col">value</th>' in prose(table)


def test_a_report_is_cut_at_its_headings_and_loses_title_and_tables() -> None:
    head, parts = sections("# T\n\nwords\n\n| a |\n| --- |\n\n- note\n\n## One\n\nbody\n\n## Two\nmore\n")
    assert head.split() == ["words", "-", "note"]
    assert parts == [("One", "body"), ("Two", "more")]
