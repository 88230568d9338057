"""The project's template and a user's own: what they render, what is refused, and what they are known by."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from byte_tokenizer import byte_tokenizer
from tokenizers.processors import TemplateProcessing

from reproduction.data import encode_prompts, mixture_examples, to_examples
from reproduction.data.templates import ALPACA, TEMPLATE_VERSION, Template, load_template, render

PLAIN = """\
A task. Solve it.

Task: {{ instruction }}
{% if input %}
Given: {{ input }}
{% endif %}
Solution:
"""
CHATML = """\
{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
    {% endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{% endif %}
"""
BRACKETS = """\
{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}
{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{% generation %}
{{ message['content'] + eos_token }}{% endgeneration %}{% break %}{% endif %}{% endfor %}
"""
JSON = "{{ messages | tojson }}\n{{ messages | tojson(indent=2) }}\nA:"
DATED = """\
Today is {{ strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" }}.
{{ (tools or []) | length }} {{ messages[0]['content'] | trim }}
"""


@pytest.fixture
def own(tmp_path: Path):
    def load(text: str | bytes, name: str = "own.jinja") -> Template:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_template(path)

    return load


def test_the_projects_template_has_its_fields_in_sections_and_is_pinned():
    prompt = render(" Mend {input}. ", "{instruction} {0}\n")
    assert "### Instruction:\nMend {input}.\n\n### Input:\n{instruction} {0}\n\n" in prompt
    assert prompt.endswith("### Response:\n")
    assert render("Choose.", " \n") == render("Choose.")
    assert "### Input:" not in render("Choose.")
    assert all(stop in "\n\n" + prompt.replace(" with an input", "") for stop in ALPACA.stops)
    assert ALPACA.identity == {"template_version": TEMPLATE_VERSION}
    digest = hashlib.sha256((render("I") + render("I", "X")).encode()).hexdigest()[:12]
    assert (TEMPLATE_VERSION, digest) == (1, "b22da7c7c513")


def test_an_own_template_is_rendered_with_and_without_an_input(own):
    template = own(PLAIN)
    assert template.name == "own"
    assert template.render(" Add. ", " \n") == "A task. Solve it.\n\nTask: Add.\nSolution:"
    assert template.render("Add {{ 1 }}.", "{% 2") == "A task. Solve it.\n\nTask: Add {{ 1 }}.\nGiven: {% 2\nSolution:"
    assert own(PLAIN + "\n").render("Add.") == template.render("Add.") + "\n"  # one at the end is the editor's


@pytest.mark.parametrize("source", [CHATML, BRACKETS, JSON])
def test_a_chat_template_gives_the_prompt_that_transformers_gives(source, own):
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    messages = [{"role": "user", "content": "Add ü.\n\n<1> & 2"}]
    theirs = tokenizer.apply_chat_template(messages, chat_template=source, add_generation_prompt=True, tokenize=False)
    prompt = Template("own", source).render("Add ü.", "<1> & 2")
    assert prompt == theirs.removeprefix("<s>")
    # The start token stands once, by the tokenizer alone or written out as well.
    alone = [1, *tokenizer(prompt, add_special_tokens=False).input_ids]
    assert encode_prompts(tokenizer, [prompt, theirs]) == [alone] * 2


def test_a_chat_template_that_asks_for_the_day_gets_none_and_falls_back_on_its_own(own):
    assert own(DATED).render("Add.") == "Today is 26 Jul 2024.\n0 Add."


@pytest.mark.parametrize(
    ("source", "stops"),
    [
        (PLAIN, ("\nTask:",)),
        (CHATML, ("\n<|im_start|>user",)),
        (BRACKETS, ("\n[INST]",)),
        ("### Ask\n\n  {{ instruction }}\n{{ input }}\n### Say", ("\n### Ask",)),
        ("```\n{{ instruction }}\n{{ input }}\nAnswer:", ()),
    ],
)
def test_an_answer_stops_at_what_stands_before_an_instruction(source, stops, own):
    assert own(source).stops == stops


def test_a_template_is_known_by_its_text_and_not_by_where_it_lies_or_how_an_editor_saved_it(own, tmp_path, monkeypatch):
    first = own(PLAIN)
    assert len(first.identity["template"]) == 16
    for same in (own(PLAIN, "other.txt"), own(b"\xef\xbb\xbf" + PLAIN.encode()), own(PLAIN.replace("\n", "\r\n"))):
        assert same.identity == first.identity
    assert own(PLAIN.replace("Solve", "Count")).identity != first.identity
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_template("~/other.txt").identity == first.identity


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"\xff{{ instruction }}", "not UTF-8 .byte 0"),
        ("Task:\n{{ instruction }\n", "no Jinja: line 2"),
        ("", "renders nothing"),
        ("{% if input %}{{ instruction }}{{ input }}{% endif %}", "renders nothing"),
        ("Task: {{ instrution }}\nAnswer:", "leaves out the instruction"),
        ("Task: {{ instruction }}\nAnswer:", "leaves out the input"),
        ("{{ instruction }} {{ input }}\nAnswer:\t", "ends its prompt in a space"),
        ("{{ instruction }}{{ input }}{{ eos_token }}\n", "writes eos_token"),
        ("{{ raise_exception('no user') }}", r"no prompt: no user\."),
        ("{{ instruction }}{{ input }}{{ strftime_now('%d') }}", "no prompt: 'strftime_now' is un"),
        ("{{ instruction }}{{ input }}{{ [1, 2] | random }}", "no Jinja: line 1: .*'random'"),
        ("{{ instruction.__class__.__mro__ }}", "no prompt: .*unsafe"),
    ],
)
def test_a_file_that_is_no_usable_template_is_refused_in_one_sentence_that_names_it(text, sentence, own):
    with pytest.raises(ValueError, match=rf"own\.jinja .*{sentence}") as refused:
        own(text)
    assert "\n" not in str(refused.value)


def test_a_missing_file_an_empty_instruction_and_what_the_template_refuses_are_refused(own, tmp_path):
    with pytest.raises(ValueError, match=r"none\.jinja cannot be read: No such file"):
        load_template(tmp_path / "none.jinja")
    template = own("{% if 'x' in instruction %}{{ raise_exception('no x') }}{% endif %}" + PLAIN)
    for each in (template, ALPACA):
        with pytest.raises(ValueError, match="empty instruction"):
            each.render(" \n", "1")
    with pytest.raises(ValueError, match="Template 'own' gives no prompt: no x"):
        template.render("x + 1")


def test_every_training_set_is_rendered_by_the_template_it_is_given(own):
    template = own(PLAIN)
    row = {"id": "0", "question": "How many?", "answer": "#### 1", "part": "gsm8k"}
    task = {"id": "1", "instruction": "Add.", "input": "1 2", "output": "3", "part": "alpaca"}
    prompts = [template.render("How many?"), template.render("Add.", "1 2")]
    assert [each.prompt for each in to_examples("gsm8k", [row], template=template)] == prompts[:1]
    assert [each.prompt for each in mixture_examples([row, task], template=template)] == prompts
    assert mixture_examples([row, task])[1].prompt == render("Add.", "1 2")


def test_the_templates_need_jinja_only_where_a_user_brings_one(tmp_path):
    (tmp_path / "own.jinja").write_text(PLAIN)
    code = (
        "import sys; sys.modules |= dict.fromkeys(['peft', 'torch', 'numpy'])  # none can be imported\n"
        "from reproduction.data.templates import ALPACA, load_template; ALPACA.render('Add.')\n"
        "assert 'jinja2' not in sys.modules; load_template(sys.argv[1]); assert 'jinja2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "own.jinja"], check=True)
