"""Prompt template of training and evaluation: the project's own or a user's Jinja file.

`ALPACA`, pinned by `TEMPLATE_VERSION`, has the layout of Stanford's Alpaca: a preamble line, then the sections
Instruction, Input (omitted if empty) and Response, followed by the answer. Training and evaluation share the same
`Template`. Only the standard library is imported; jinja2 is imported when a user's template is used.
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

# Texts to test a template with: no template contains them, and escaping does not change them.
_INSTRUCTION, _INPUT, _END = "instruction 7c41", "input 9d20", "end 3b58"


def render(instruction: str, input: str = "") -> str:
    """Render the project's own template, see `Template.render`."""
    return ALPACA.render(instruction, input)


@dataclass(frozen=True)
class Template:
    """A prompt template.

    Args:
        name: label in records, not part of the template's identity.
        source: Jinja text of a user's template, see `load_template`; None for the project's own.
    """

    name: str
    source: str | None = None

    def render(self, instruction: str, input: str = "") -> str:
        """Return the prompt for an instruction, up to the response; both fields are stripped.

        Raises ValueError if the instruction is empty or the template fails.
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
        except Exception as error:  # a template can raise anything
            raise ValueError(f"Template {self.name!r} gives no prompt: {_sentence(error)}") from error

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that show that an answer has run on into another prompt.

        For a user's template: the last text line before the instruction, or the text before it on its own line.
        """
        if self.source is None:
            return _STOPS
        before = self.render(_INSTRUCTION).partition(_INSTRUCTION)[0]
        # Answers may contain lines without letters, and fences.
        lines = [line for line in before.split("\n") if any(map(str.isalpha, line)) and "```" not in line]
        return ("\n" + lines[-1].rstrip(),) if lines else ()

    @property
    def identity(self) -> Mapping[str, Any]:
        """Identity of the template: its version, or a hash of the user's text."""
        if self.source is None:
            return {"template_version": TEMPLATE_VERSION}
        return {"template": hashlib.sha256(self.source.encode()).hexdigest()[:16]}


ALPACA = Template("alpaca")


def load_template(path: Path | str) -> Template:
    """Load a user's template, named after its file.

    The file is Jinja, with trim_blocks and lstrip_blocks as in transformers. It uses `instruction` and `input`, or,
    like a chat template, `messages`: one user message with both, separated by a blank line; `add_generation_prompt` is
    true, `tools` and `documents` are None. `bos_token` is empty because the tokenizer adds its start token. One newline
    at the end of the file is not part of the prompt.

    Raises:
        ValueError: the file cannot be read, is not UTF-8 or not Jinja, or its prompts are unusable: without the
            instruction or the input, with the end token, or with a space at the end.
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
    except Exception as error:  # a template can raise anything
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
    """Compile a template in an environment like transformers', without functions of date or chance.

    strftime_now stays undefined: templates that check for it have a date of their own as fallback.
    """
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """{% generation %} marks the assistant's part, which a prompt does not have."""

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
