"""The prompt template of training and evaluation, the project's own or a user's Jinja file.

`ALPACA`, pinned by `TEMPLATE_VERSION`, has the layout that Stanford's Alpaca made common: a line of preamble, then the
sections Instruction, Input (left out when it is empty) and Response, which the answer follows. Training and evaluation
render through the same `Template`. Imports the standard library alone, and jinja2 once a user's own template is used.
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

_WITHOUT_INPUT = "Below is an instruction. Write a response that carries it out.\n\n### Instruction:\n"
_WITH_INPUT = "Below is an instruction with an input. Write a response that carries it out.\n\n### Instruction:\n"
_STOPS = ("\n\nBelow is an instruction", "### Instruction:")

# What a template is tried with: texts that none holds, and that no escaping changes.
_INSTRUCTION, _INPUT, _END = "instruction 7c41", "input 9d20", "end 3b58"


def render(instruction: str, input: str = "") -> str:
    """The project's own prompt for an instruction; see `Template.render`."""
    return ALPACA.render(instruction, input)


@dataclass(frozen=True)
class Template:
    """How an instruction becomes a prompt.

    Args:
        name: label in records; no part of the template's identity.
        source: Jinja text of a user's own template, see `load_template`; None is the project's own.
    """

    name: str
    source: str | None = None

    def render(self, instruction: str, input: str = "") -> str:
        """Prompt for an instruction, ready for the response; white space around both fields is dropped.

        Raises ValueError where the instruction is empty, or the template refuses it.
        """
        instruction, input = instruction.strip(), input.strip()
        if not instruction:
            raise ValueError("render() got an empty instruction: give it the text of the task.")
        if self.source is None:
            if not input:
                return f"{_WITHOUT_INPUT}{instruction}\n\n{RESPONSE_HEADER}"
            return f"{_WITH_INPUT}{instruction}\n\n### Input:\n{input}\n\n{RESPONSE_HEADER}"
        try:
            return _fill(self.source, instruction, input)
        except Exception as error:  # whatever a program in the template can run into
            raise ValueError(f"Template {self.name!r} gives no prompt: {_sentence(error)}") from error

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings at which an answer has run on into another prompt.

        A user's template has one: the last line before the instruction, or what stands before it on its own line.
        """
        if self.source is None:
            return _STOPS
        before = self.render(_INSTRUCTION).partition(_INSTRUCTION)[0]
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
    for fields in ((_INSTRUCTION,), (_INSTRUCTION, _INPUT)):
        if reason := _why_unusable(template.source, fields):
            raise ValueError(f"Template {path} {reason}")
    return template


def _why_unusable(source: str, fields: tuple[str, ...]) -> str | None:
    from jinja2 import TemplateSyntaxError

    try:
        prompt, ended = _fill(source, *fields), _fill(source, *fields, eos_token=_END)
    except TemplateSyntaxError as error:
        return f"is no Jinja: line {error.lineno}: {_sentence(error.message)}"
    except Exception as error:  # whatever a program in the template can run into
        return f"gives no prompt: {_sentence(error)}"
    if not prompt.strip():
        return "renders nothing: let it write the instruction, {{ instruction }}."
    for field, text in zip(("instruction", "input"), fields, strict=False):
        if text not in prompt:
            return f"leaves out the {field}: write {{{{ {field} }}}} where it belongs."
    if _END in ended:
        return "writes eos_token, which the tokenizer alone knows: write the token itself."
    if prompt[-1] in " \t":
        return "ends its prompt in a space, which tokenizers join to the answer's first word: end in a newline."
    return None


def _sentence(reason: object) -> str:
    return " ".join(str(reason).split()).rstrip(".") + "."


def _fill(source: str, instruction: str, input: str = "", *, eos_token: str = "") -> str:
    content = "\n\n".join(filter(None, (instruction, input)))
    return _compile(source).render(
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
def _compile(source: str):
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
