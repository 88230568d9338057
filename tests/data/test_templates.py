import hashlib

import pytest

from reproduction.data.templates import TEMPLATE_VERSION, render


def test_a_prompt_holds_its_instruction_and_ends_where_the_response_begins():
    prompt = render("Name a colour.")
    assert "### Instruction:\nName a colour.\n\n" in prompt
    assert "### Input:" not in prompt
    assert prompt.endswith("### Response:\n")


def test_an_input_gets_a_section_of_its_own_and_white_space_is_none():
    assert "### Input:\nblue, red\n\n### Response:\n" in render("Choose.", "blue, red")
    assert render("Choose.", " \n") == render("Choose.")


def test_braces_and_section_names_in_a_task_stay_as_they_are():
    prompt = render("Mend {input} in {instruction}.", "{instruction} {0}")
    assert "Mend {input} in {instruction}." in prompt
    assert "### Input:\n{instruction} {0}\n" in prompt


def test_changing_the_template_needs_a_new_version():
    digest = hashlib.sha256((render("I") + render("I", "X")).encode()).hexdigest()[:12]
    assert (TEMPLATE_VERSION, digest) == (1, "b22da7c7c513")


def test_an_empty_instruction_is_refused():
    with pytest.raises(ValueError, match="empty instruction"):
        render("  ", "input")
