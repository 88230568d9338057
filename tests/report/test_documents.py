"""Markdown shows a user's labels as they are: they are neither markup nor HTML there."""

import dataclasses
import html
import re

import pytest
from markdown_it import MarkdownIt

from reproduction.report import gather, lay_out
from reproduction.report.documents import literal, pipes
from reproduction.report.render import markdown

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NASTY = (
    "a|b \\| c", "**bold** and *em*", "_under_ snake_case_name _", "`code` ``x``", "[click](https://example.org)",
    "![x](y.png)", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<https://example.org>", "a & b &lt; c",
    "# heading", "- list", "> quote", "~~gone~~ $x^2$", "back\\slash \\* \\", "r < 8 > 4, 50 %",
)  # fmt: skip


@pytest.mark.parametrize("label", NASTY)
def test_a_label_reads_as_it_is_in_text_and_in_a_table(label):
    assert READER.render(literal(label)) == f"<p>{html.escape(label)}</p>\n".replace("&#x27;", "'")
    table = READER.render(pipes(["Model", "Method", "n"], [[label, "LoRA", "**1**"], ["one\nmore", label, "2"]]))
    cells = [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*)</td>", table)]
    assert cells == [label, "LoRA", "<strong>1</strong>", "one more", label, "2"]


@pytest.mark.parametrize("label", ["ID-LoRA", "SmolLM2-135M (de-quantised from 4 bits)", "no R_b, k = 8: 1/k", "µ ± 1"])
def test_what_is_no_markup_is_left_as_it_is(label):
    assert literal(label) == label


def test_a_tables_report_shows_models_methods_and_reasons_as_they_are(world, few):
    model = {"name": "pebble", "label": "My | <b>model</b> ![x](https://example.org/x)", "checksum": "x"}
    named = dataclasses.replace(few, labels=few.labels | {"lora": "Lo`RA` *mine*", "idlora": "I<i>D"})
    made = world(grid=named)
    for experiment, method, _ in named.cells():
        if (experiment, method) != ("gsm8k_llama3", "idlora"):
            made.run(experiment, method, model=model)
    run = made.run("gsm8k_llama3", "idlora", model=model, benchmarks=[])
    (run.folder / "status.json").write_text('{"state": "failed", "reason": "ValueError: <b>*no*</b>"}')
    page = READER.render(markdown(lay_out(gather(named, made.root, scale="tiny"))))
    assert not re.search(r"<(?!/?(h[12]|p|ul|li|table|thead|tbody|tr|t[hd]|strong|code)\b)", page)
    text = html.unescape(re.sub(r"<[^>]*>", "", page))
    for words in (model["label"], "Lo`RA` *mine*", "I<i>D", "failed: ValueError: <b>*no*</b>"):
        assert words in text, words
