"""Extract the code from an answer to a HumanEval problem.

The first of these forms that matches an answer is used:

1. the whole answer is a program that defines the function;
2. a fenced block defines it; definitions that it uses are taken from the other blocks;
3. code between prose defines it;
4. a block or code between prose is the function's body: preferably one that returns.

Only two lines may be re-indented: the first one, which loses its indentation in stripped answers, and the definition's.
Other errors are not repaired.
"""

import ast
import builtins
import keyword
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence, Set
from itertools import chain
from typing import NamedTuple

from reproduction.evals.statements import DEFINITIONS, Statement, ends, is_words, leading, scan

_FENCE = re.compile(r"(?:`{3,}|^[ \t]*~{3,})(?:[ \t]*[\w+#.-]+[ \t]*$)?", re.MULTILINE)
_LANGUAGE = re.compile(r"[ \t]*(?:python3?|py)\b")
_RETURNS = re.compile(r"\b(?:return|yield|raise)\b")
_NO_CODE = "    raise NotImplementedError  # no code was found in the answer\n"
_MOST_MARGINS = 8  # indentations to try for one line: noise may have hundreds


class _Code(NamedTuple):
    """Own statements (up to the function, and later ones it uses), others that they use, and undefined names."""

    own: list[Statement]
    others: list[Statement]
    undefined: frozenset[str]


def extract(text: str, entry_point: str) -> str:
    """Return the code in an answer, as text that follows the problem's prompt (a signature with its docstring).

    A body is indented by four spaces and followed by the module-level code that it uses. A whole program starts on a
    new line and overrides the prompt's stub; the prompt's imports and helpers stay. Usage examples, asserts and prints
    are dropped. Text without code returns a program that fails.
    """
    text = re.sub("\r\n?", "\n", text.rpartition("</think>")[2])
    with warnings.catch_warnings(action="ignore"):  # invalid escapes in a model's strings
        parts = _parts(text)
        extra = [each for part in parts for each in chain(*scan(_dedented(part))[0])]
        is_program = not scan(_dedented(text))[1]
        for part in (*([text] if is_program else parts), text):
            if code := _definition(part, entry_point, extra):
                return "\n\n" + "\n".join(each.text for each in (*code.others, *code.own)) + "\n"
        if bodies := [body for part in parts if (body := _body(part, entry_point, extra))]:
            return max(bodies, key=lambda body: _RETURNS.search(body) is not None)
    text = text.strip("\n")
    if not text.strip():
        return "\n"
    return (text if text[0].isspace() else textwrap.indent(text, "    ")) + "\n" + _NO_CODE


def _parts(text: str) -> list[str]:
    """Split an answer at its fences into prose and blocks; fences inside strings do not count."""
    parts, start = [], 0
    for fence in _FENCE.finditer(text):
        if not any(text.count(quotes, start, fence.start()) % 2 for quotes in ('"""', "'''")):
            parts.append(text[start : fence.start()])
            start = fence.end()
    first, *others = [*parts, text[start:]]
    return [first, *map(_without_info, others)]


def _without_info(block: str) -> str:
    """Drop the info string of a block's fence; code on the fence's line stays."""
    head, newline, rest = block.partition("\n")
    head = _LANGUAGE.sub("", head)
    return rest if newline and is_words(head) else head + newline + rest


def _definition(text: str, name: str, extra: Sequence[Statement]) -> _Code | None:
    """Return the function's code from the layout of the text with the fewest undefined names, or None."""
    found = []
    for is_other, layout in enumerate(_layouts(text, name)):
        chunks, left = scan(layout)
        # A body may assign to the function's name, and another layout may end the function too early.
        returns = any(line.lstrip().startswith("return") for line in left)
        for number, chunk in enumerate(chunks):
            if any(
                _defines(each, name) and not (returns and (is_other or isinstance(each.node, ast.Assign)))
                for each in chunk
            ):
                found.append(_code(chunks, number, name, extra=extra))
                break
        parts = (part for each in chain(*chunks) for part in ast.walk(each.node) if part is not each.node)
        if (found and not found[-1].undefined) or any(getattr(part, "name", None) == name for part in parts):
            break  # complete; or the function is a method or nested in another function
    return min(found, key=lambda code: len(code.undefined), default=None)


def _defines(statement: Statement, name: str) -> bool:
    is_stub = isinstance(statement.node, DEFINITIONS) and all(
        isinstance(each, ast.Pass) or _is_constant(each) for each in statement.node.body
    )
    return name in statement.binds and not is_stub


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _code(chunks: list[list[Statement]], home: int, name: str, *, extra: Sequence[Statement]) -> _Code:
    """Return a chunk's code up to the function's last definition, with the statements that it uses: later ones that
    bind or change a used name, and statements of other chunks that bind an undefined name.
    """
    last = max(index for index, each in enumerate(chunks[home]) if name in each.binds)
    own = [each for each in chunks[home][: last + 1] if name in each.binds or _counts(each, name)]
    after = chunks[home][last + 1 :]
    elsewhere = [*chain(*chunks[:home], *chunks[home + 1 :]), *extra]
    later: list[Statement] = []
    others: list[Statement] = []
    while True:
        used = frozenset().union(*(each.uses for each in (*own, *later, *others)))
        undefined = used.difference(dir(builtins), *(each.binds for each in (*own, *later, *others)))
        count = len(later) + len(others)
        later = [
            each
            for each in after
            if each in later or each.binds & used or (_changes(each, used) and _counts(each, name))
        ]
        undefined -= frozenset().union(*(each.binds for each in later))
        others = [each for each in elsewhere if each in others or each.binds & undefined]
        if len(later) + len(others) == count:
            return _Code([*own, *later], others, undefined)


def _changes(statement: Statement, names: Set[str]) -> bool:
    """Whether a statement changes the value of a name. While loops count: usage examples have none."""
    return bool(statement.changes & names) or isinstance(statement.node, ast.While)


def _counts(statement: Statement, name: str) -> bool:
    """Whether a statement is code, not prose that parses or an example of the function's use."""
    node = statement.node
    if isinstance(node, DEFINITIONS):
        return True
    if isinstance(node, ast.Expr):  # keep calls such as sys.setrecursionlimit(…)
        return isinstance(getattr(node.value, "func", None), ast.Attribute)
    return not (
        isinstance(node, ast.Assert)
        or (isinstance(node, ast.AnnAssign) and node.value is None)
        or (isinstance(node, ast.ImportFrom) and node.module == "__future__")  # a syntax error after the prompt
        or name in statement.uses
    )


def _layouts(text: str, name: str) -> Iterator[str]:
    """Yield a text unchanged, then with other margins of the definition's line or the first line, then without lines
    indented less than the definition. For an enclosed definition only the unchanged text.
    """
    yield _dedented(text)
    lines = text.split("\n")
    pattern = re.compile(rf"\s*(async +)?def +{name}\b")
    at = next((number for number, line in enumerate(lines) if pattern.match(line)), None)
    if at is None or _is_enclosed(lines, at):
        return
    first = next(number for number, line in enumerate(lines) if line.strip())
    for number in dict.fromkeys((at, first)):
        for margin in _margins(lines):
            yield _dedented("\n".join([*lines[:number], margin + lines[number].lstrip(), *lines[number + 1 :]]))
    yield _dedented("\n".join(line if len(_margin(line)) >= len(_margin(lines[at])) else "" for line in lines))


def _is_enclosed(lines: list[str], at: int) -> bool:
    """Whether a definition's line is inside the (possibly broken) block of a class or another function."""
    depth = len(_margin(lines[at]))
    outer = [number for number in range(at) if lines[number].strip() and len(_margin(lines[number])) < depth]
    header = re.match(r"\s*(class|def|async)\b", lines[outer[-1]]) if outer else None
    if header is None:
        return False
    inside, after = (next(filter(str.strip, lines[number + 1 :]), "") for number in (outer[-1], at))
    # The indentation of its body shows whether the line is nested or only wrongly indented.
    return len(_margin(inside)) == depth and (header[1] == "class" or len(_margin(after)) > depth)


def _dedented(text: str) -> str:
    """Dedent like `textwrap.dedent`, but keep the white space of blank lines: it may belong to a string."""
    lines = text.split("\n")
    margin = min((_margin(line) for line in lines if line.strip()), key=len, default="")
    return "\n".join(line.removeprefix(margin) for line in lines)


def _margin(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _margins(lines: list[str]) -> list[str]:
    return sorted({"", *(_margin(line) for line in lines if line.strip())}, key=len)[:_MOST_MARGINS]


def _body(text: str, name: str, extra: Sequence[Statement]) -> str | None:
    """Parse a text as the function's body; return it with the module-level code that it uses, or None."""
    lines = text.split("\n")
    while lines and (not lines[0].strip() or _is_prose(lines[0])):
        lines.pop(0)
    if not lines:
        return None
    header = f"def {name}():"
    for margin in dict.fromkeys((_margin(lines[0]), "    ", *_margins(lines[1:]))):
        block = [margin + lines[0].lstrip(), *lines[1:]]
        chunks, _ = scan("\n".join([header, *(block if margin else _indented(header, block))]))
        if chunks[0] and not all(isinstance(e, ast.ClassDef) or _is_constant(e) for e in chunks[0][0].node.body):
            break
    else:
        return None
    code = _code(chunks, 0, name, extra=extra)
    function, *own = code.own
    first, lines = function.node.body[0], function.text.split("\n")
    margin = lines[first.lineno - 1][: first.col_offset]
    lines = ["    " + line.removeprefix(margin) if line.startswith(margin) else line for line in lines[1:]]
    return "\n".join(lines).strip("\n") + "\n" + "".join(f"\n\n{each.text}\n" for each in (*code.others, *own))


def _indented(header: str, lines: list[str]) -> list[str]:
    """Indent an unindented body up to its last return; the rest stays as module-level code or prose."""
    block = textwrap.indent("\n".join(lines), "    ").split("\n")
    statements = leading([header, *block], range(20))[0]
    end = next((node.end_lineno - 1 for each in statements for node in each.node.body if ends(node)), len(lines))
    return [*block[:end], *lines[end:]]


def _is_prose(line: str) -> bool:
    """Whether a line before a body is prose. Broken code is not prose and must not be dropped."""
    words = line.split()
    if not is_words(line):  # one or two words of prose parse as a name or an annotation
        return re.fullmatch(r"\w+(: *\w+)?", line.strip()) is not None and not keyword.iskeyword(words[0])
    if keyword.iskeyword(words[0]) and words[0] not in ("from", "import"):
        return False
    return words[0][0].isupper() or line.rstrip()[-1] in ".:!?" or (len(words) > 2 and "".join(words).isalpha())
