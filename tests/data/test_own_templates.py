"""A user's own template: what it renders, what of it is refused, what it is known by."""

import subprocess
import sys
from pathlib import Path

import pytest
from byte_tokenizer import byte_tokenizer
from chat_templates import BRACKETS, CHATML, HEADERS, PLAIN
from tokenizers.processors import TemplateProcessing

from reproduction.data import encode_prompts, mixture_examples, to_examples
from reproduction.data.templates import ALPACA, TEMPLATE_VERSION, Template, load_template, render


@pytest.fixture
def own(tmp_path: Path):
    def load(text: str | bytes, name: str = "own.jinja") -> Template:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_template(path)

    return load


def test_the_default_is_the_projects_own_template():
    assert ALPACA.render("Add.", "1 2") == render("Add.", "1 2")
    assert ALPACA.identity == {"template_version": TEMPLATE_VERSION}
    assert ALPACA.stops == ("\n\nBelow is an instruction", "### Instruction:")
    for stop in ALPACA.stops:
        assert stop in "\n\n" + render("Add.")


def test_an_own_preamble_is_rendered_with_and_without_an_input(own):
    template = own(PLAIN)
    assert template.name == "own"
    assert template.render(" Add. ", " \n") == "A task. Solve it.\n\nTask: Add.\nSolution:"
    assert template.render("Add {{ 1 }}.", "{% 2") == "A task. Solve it.\n\nTask: Add {{ 1 }}.\nGiven: {% 2\nSolution:"


@pytest.mark.parametrize("source", [CHATML, BRACKETS])
def test_a_chat_template_gives_the_prompt_that_transformers_gives(source, own):
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    messages = [{"role": "user", "content": "Add ü.\n\n<1> & 2"}]
    theirs = tokenizer.apply_chat_template(messages, chat_template=source, add_generation_prompt=True, tokenize=False)
    prompt = own(source).render("Add ü.", "<1> & 2")
    assert prompt == theirs.removeprefix("<s>")
    assert "Add ü.\n\n<1> & 2" in prompt
    # The start token stands once, by the tokenizer alone or written out as well.
    assert (
        encode_prompts(tokenizer, [prompt, theirs]) == [[1, *tokenizer(prompt, add_special_tokens=False).input_ids]] * 2
    )


def test_a_chat_template_that_asks_for_the_day_gets_none_and_falls_back_on_its_own(own):
    template = own(HEADERS)
    assert template.render("Add.") == (
        "<|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAdd.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_json_in_a_prompt_is_written_as_transformers_writes_it(own):
    source = "{{ messages | tojson }}\n{{ messages | tojson(indent=2) }}\nA:"
    theirs = byte_tokenizer().apply_chat_template(
        [{"role": "user", "content": "<é>"}], chat_template=source, tokenize=False
    )
    assert own(source).render("<é>") == theirs


@pytest.mark.parametrize(
    ("source", "stops"),
    [
        (PLAIN, ("\nTask:",)),
        (CHATML, ("\n<|im_start|>user",)),
        (BRACKETS, ("\n[INST]",)),
        ("{{ instruction | e }}\n{{ input | e }}\nAnswer:", ()),
        ("### Ask\n\n  {{ instruction }}\n{{ input }}\n### Say", ("\n### Ask",)),
        ("{{ instruction }}\n{{ input }}\nAnswer:", ()),
    ],
)
def test_an_answer_stops_at_what_stands_before_an_instruction(source, stops, own):
    assert own(source).stops == stops


def test_one_newline_at_the_files_end_is_the_editors_and_a_second_is_the_prompts(own):
    assert own(PLAIN.rstrip("\n")).render("Add.") == own(PLAIN).render("Add.")
    assert own(PLAIN + "\n").render("Add.") == own(PLAIN).render("Add.") + "\n"
    assert own(PLAIN.rstrip("\n") + '{{ "\\n" }}').render("Add.") == own(PLAIN).render("Add.") + "\n"


def test_a_template_is_known_by_its_text_and_not_by_where_it_lies_or_how_an_editor_saved_it(own):
    first = own(PLAIN)
    assert first.identity.keys() == {"template"}
    assert len(first.identity["template"]) == 16
    for same in (own(PLAIN, "other.txt"), own(b"\xef\xbb\xbf" + PLAIN.encode()), own(PLAIN.replace("\n", "\r\n"))):
        assert same.identity == first.identity
        assert same.render("Add.", "1") == first.render("Add.", "1")
    assert own(PLAIN.replace("Solve", "Count")).identity != first.identity


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"\xff{{ instruction }}", r"own\.jinja is not UTF-8 \(byte 0\)"),
        ("Task:\n{{ instruction }\n", r"own\.jinja is no Jinja: line 2: "),
        ("{% for %}", r"own\.jinja is no Jinja: line 1: "),
        ("", r"own\.jinja renders nothing"),
        ("{% if input %}{{ instruction }}{{ input }}{% endif %}", r"own\.jinja renders nothing"),
        ("Task: {{ instrution }}\nAnswer:", r"own\.jinja leaves out the instruction"),
        ("Task: {{ instruction }}\nAnswer:", r"own\.jinja leaves out the input: write \{\{ input \}\} where"),
        ("{{ instruction }} {{ input }}\nAnswer: ", r"own\.jinja ends its prompt in a space"),
        ("{{ instruction }} {{ input }}\nAnswer:\t", r"own\.jinja ends its prompt in a space"),
        ("{{ instruction }}{{ input }}{{ eos_token }}\n", r"own\.jinja writes eos_token"),
        ("{{ raise_exception('no user') }}", r"own\.jinja gives no prompt: no user\."),
        ("{{ messages[1].content }}", r"own\.jinja gives no prompt: .*no element 1"),
        ("{{ instruction }}{{ input }}{{ strftime_now('%d') }}", r"own\.jinja gives no prompt: 'strftime_now' is un"),
        ("{{ instruction }}{{ input }}{{ [1, 2] | random }}", r"own\.jinja is no Jinja: line 1: .*'random'"),
        ("{{ instruction }}{{ input }}{{ 1 // 0 }}", r"own\.jinja gives no prompt: .*by zero"),
        ("{{ instruction.__class__.__mro__ }}", r"own\.jinja gives no prompt: .*unsafe"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_usable_template_is_refused_in_one_sentence_that_names_it(text, sentence, own):
    with pytest.raises(ValueError, match=sentence) as refused:
        own(text)
    assert str(refused.value).count("\n") == 0


def test_a_path_may_begin_at_home(own, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    template = own(PLAIN)
    assert load_template("~/own.jinja") == template


def test_a_template_that_is_not_there_is_refused_by_its_path(tmp_path):
    with pytest.raises(ValueError, match=r"none\.jinja cannot be read: No such file"):
        load_template(tmp_path / "none.jinja")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        load_template(tmp_path)


def test_an_empty_instruction_and_one_that_the_template_refuses_are_refused(own):
    template = own("{% if 'x' in instruction %}{{ raise_exception('no x') }}{% endif %}" + PLAIN)
    with pytest.raises(ValueError, match="empty instruction"):
        template.render(" \n", "1")
    with pytest.raises(ValueError, match="Template 'own' gives no prompt: no x"):
        template.render("x + 1")


def test_every_training_set_is_rendered_by_the_template_it_is_given(own, tmp_path):
    template = own(PLAIN)
    row = {"id": "0", "question": "How many?", "answer": "#### 1"}
    assert to_examples("gsm8k", [row], template=template)[0].prompt == template.render("How many?")
    task = {"id": "1", "instruction": "Add.", "input": "1 2", "output": "3"}
    assert to_examples("alpaca", [task], template=template)[0].prompt == template.render("Add.", "1 2")
    mixed = [row | {"part": "gsm8k"}, task | {"part": "alpaca"}]
    prompts = [example.prompt for example in mixture_examples(mixed, template=template)]
    assert prompts == [template.render("How many?"), template.render("Add.", "1 2")]
    assert mixture_examples(mixed)[1].prompt == render("Add.", "1 2")


def test_the_templates_need_jinja_only_where_a_user_brings_one(tmp_path):
    (tmp_path / "own.jinja").write_text(PLAIN)
    code = (
        "import sys; sys.modules |= dict.fromkeys(['peft', 'torch', 'numpy'])  # none can be imported\n"
        "from reproduction.data.templates import ALPACA, load_template; ALPACA.render('Add.')\n"
        "assert 'jinja2' not in sys.modules; load_template(sys.argv[1]); assert 'jinja2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "own.jinja"], check=True)
