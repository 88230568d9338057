"""The prompt template of training and evaluation, ours or a user's own.

`ALPACA`, pinned by `TEMPLATE_VERSION`, has the layout that Stanford's Alpaca made common: a line of preamble, then the
sections Instruction, Input (left out when it is empty) and Response. Its prompt ends in `"### Response:\\n"`; the
answer starts on the line after it. `load_template` takes a Jinja file in its place, such as the chat template of a
model's page. Training and evaluation render through the same `Template`, so a model is asked exactly as it was taught.

What goes into it, and what a benchmark puts without it, stands elsewhere: `examples` for training rows, and
`reproduction.evals.tasks` for a benchmark's instruction and its raw layout.

Imports the standard library alone, and jinja2 once a user's own template is used. Left out: conversations of several
turns.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPLATE_VERSION = 1

RESPONSE_HEADER = "### Response:\n"

_WITHOUT_INPUT = (
    "Below is an instruction. Write a response that carries it out.\n\n"
    "### Instruction:\n{instruction}\n\n" + RESPONSE_HEADER
)
_WITH_INPUT = (
    "Below is an instruction with an input. Write a response that carries it out.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n" + RESPONSE_HEADER
)

_STOPS = ("\n\nBelow is an instruction", "### Instruction:")


def render(instruction: str, input: str = "") -> str:
    """Prompt for an instruction, with or without an input.

    Surrounding white space of both fields is dropped; an input of white space only counts as none.

    Raises:
        ValueError: the instruction is empty.
    """
    instruction, input = _fields(instruction, input)
    # str.replace and not str.format: a task about code holds braces of its own.
    if not input:
        return _WITHOUT_INPUT.replace("{instruction}", instruction)
    head, tail = _WITH_INPUT.split("{input}")
    return head.replace("{instruction}", instruction) + input + tail


def _fields(instruction: str, input: str) -> tuple[str, str]:
    if not instruction.strip():
        raise ValueError("render() got an empty instruction: give it the text of the task.")
    return instruction.strip(), input.strip()


@dataclass(frozen=True)
class Template:
    """How an instruction becomes a prompt.

    Attributes:
        name: what a person calls it; no part of its identity.
        source: Jinja text of a user's own template, see `load_template`; None is the project's own.
    """

    name: str
    source: str | None = None

    def render(self, instruction: str, input: str = "") -> str:
        """Prompt for an instruction, ready for the response.

        Surrounding white space of both fields is dropped; an input of white space only counts as none.

        Raises:
            ValueError: the instruction is empty, or the template refuses it.
        """
        if self.source is None:
            return render(instruction, input)
        fields = _fields(instruction, input)
        try:
            return _filled(self.source, *fields)
        except Exception as error:  # whatever a program in the template can run into
            raise ValueError(f"Template {self.name!r} gives no prompt: {_sentence(error)}") from error

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings at which an answer has run on into another prompt.

        A user's template has one: the last line before the instruction, or what stands before it on its own line.
        """
        if self.source is None:
            return _STOPS
        before = self.render(_ASKED).partition(_ASKED)[0]
        # A line of signs alone, or a fence, would stand in answers too.
        lines = [line for line in before.split("\n") if any(map(str.isalpha, line)) and "```" not in line]
        return ("\n" + lines[-1].rstrip(),) if lines else ()

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells its prompts from another template's: our version, or a hash of the user's text."""
        if self.source is None:
            return {"template_version": TEMPLATE_VERSION}
        return {"template": hashlib.sha256(self.source.encode()).hexdigest()[:16]}


ALPACA = Template("alpaca")

# What a template is tried with: texts that none holds, and that no escaping changes.
_ASKED, _GIVEN, _END = "instruction 7c41", "input 9d20", "end 3b58"


def load_template(path: Path | str) -> Template:
    """A user's own template, named after its file.

    Jinja, with trim_blocks and lstrip_blocks as transformers has them. It reads `instruction` and `input`, or, as a
    chat template does, `messages`: one message of the user with both, a blank line between them;
    `add_generation_prompt` is true, `tools` and `documents` are None. `bos_token` is empty, for the tokenizer adds its
    start token itself. One newline at the end of the file is the editor's and no part of the prompt.

    Raises:
        ValueError: the file cannot be read, is not UTF-8 or not Jinja, or gives prompts that cannot be used: without
            the instruction or the input, with the end token, or with a space at the end.
    """
    path = Path(path).expanduser()
    try:
        template = Template(path.stem, path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"Template {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"Template {path} is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
    for fields in ((_ASKED,), (_ASKED, _GIVEN)):
        _check_prompt(template, path, fields)
    return template


def _check_prompt(template: Template, path: Path, fields: tuple[str, ...]) -> None:
    from jinja2 import TemplateSyntaxError

    try:
        prompt = template.render(*fields)
    except ValueError as error:
        if isinstance(cause := error.__cause__, TemplateSyntaxError):
            raise ValueError(f"Template {path} is no Jinja: line {cause.lineno}: {_sentence(cause.message)}") from cause
        raise ValueError(f"Template {path} gives no prompt: {_sentence(error.__cause__)}") from error
    if not prompt.strip():
        raise ValueError(f"Template {path} renders nothing: let it write the instruction, {{{{ instruction }}}}.")
    for field, text in zip(("instruction", "input"), fields, strict=False):
        if text not in prompt:
            raise ValueError(f"Template {path} leaves out the {field}: write {{{{ {field} }}}} where it belongs.")
    if _END in _filled(template.source, *fields, eos_token=_END):
        raise ValueError(f"Template {path} writes eos_token, which the tokenizer alone knows: write the token itself.")
    if prompt[-1] in " \t":
        raise ValueError(
            f"Template {path} ends its prompt in a space, which tokenizers join to the word after it, here the "
            "answer's first: leave it out, or end in a newline."
        )


def _sentence(reason: object) -> str:
    return " ".join(str(reason).split()).rstrip(".") + "."


def _filled(source: str, instruction: str, input: str = "", *, eos_token: str = "") -> str:
    content = "\n\n".join(filter(None, (instruction, input)))
    return _compiled(source).render(
        instruction=instruction,
        input=input,
        messages=[{"role": "user", "content": content}],
        add_generation_prompt=True,
        bos_token="",
        eos_token=eos_token,
        tools=None,
        documents=None,
    )


@functools.lru_cache(maxsize=16)
def _compiled(source: str):
    """The template in an environment like transformers' own, without what changes from one day or call to the next.

    strftime_now is left undefined, not replaced: templates that ask whether it is there have a date of their own.
    """
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """{% generation %} marks the assistant's part, which a prompt has not."""

        tags = frozenset({"generation"})

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)  # Jinja's own escapes HTML
    del environment.filters["random"], environment.globals["lipsum"]
    return environment.from_string(source)
