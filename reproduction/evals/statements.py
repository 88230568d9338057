"""Python between prose: which lines of a text are statements, and which names these bind and use.

Code is found by parsing: the most lines from one on that are Python are code. A statement is cut only where it cannot
go on: at a line that is no longer inside it, after its last return, or at what the text's end cut off. So code that is
wrong inside is no code, and never what is left of it. Nothing here runs the code.
"""

import ast
import bisect
import codeop
import functools
import operator
import symtable
from collections.abc import Iterable
from typing import NamedTuple

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

_BEYOND = (ValueError, RecursionError, MemoryError, OverflowError)
"""What the parser raises for text without a line to blame: too deep, too long, or with a null byte."""

_MOST_TRIES = 300
"""How often a text is parsed: code between prose takes a few times for each piece, and noise would take thousands."""


class Statement(NamedTuple):
    """A statement of a module: its lines, and the names that it binds, changes (`x[0] = …`, `x.sort()`) and uses."""

    node: ast.stmt
    text: str
    binds: frozenset[str]
    changes: frozenset[str]
    uses: frozenset[str]


@functools.lru_cache(maxsize=32)  # the parts of an answer are looked at more than once
def scan(text: str) -> tuple[list[list[Statement]], list[str]]:
    """The statements at the margin of a text, in chunks with nothing else between; and lines that are none."""
    lines, chunks, left, start, tries = text.split("\n"), [[]], [], 0, iter(range(_MOST_TRIES))
    while start < len(lines) and operator.length_hint(tries):
        line, count = lines[start], 0
        if line.strip() and not line[0].isspace() and not is_words(line):
            rest = lines[start:]
            found, count, errors = leading(rest, tries)
            after = next(filter(str.strip, rest[count:]), "")
            if found and after[:1].isspace() and not _is_over(found[-1].node) and not _is_cut_off(errors, rest):
                found.pop()  # broken inside
            chunks[-1] += found
        if line.strip() and not count:
            left.append(line)
        if line.strip():
            chunks.append([])
        start += max(count, 1)
    return chunks, left + lines[start:]


def leading(lines: list[str], tries: Iterable) -> tuple[list[Statement], int, dict[int, SyntaxError]]:
    """The statements of the most leading lines that are Python, how many lines that are, and the errors of more."""
    count, errors = len(lines), {}
    for _ in tries if count else ():
        try:
            return _parse(lines[:count]), count, errors
        except SyntaxError as error:
            errors[count] = error
            count = min(count, error.lineno or 1) - 1  # nothing that holds this line is Python
        except _BEYOND:
            count = bisect.bisect_left(range(count), True, key=lambda n: _is_beyond(lines[:n])) - 1
        if not count:
            break
    return [], 0, errors


def ends(node: ast.stmt) -> bool:
    """Whether nothing after a statement of a function's body is reached."""
    if isinstance(node, ast.If):
        return bool(node.orelse) and ends(node.body[-1]) and ends(node.orelse[-1])
    return isinstance(node, ast.Return | ast.Raise)


@functools.lru_cache(maxsize=1024)
def is_words(line: str) -> bool:
    """Whether a line begins no statement, whatever its indentation."""
    try:
        codeop.compile_command(line.strip(), symbol="exec")
    except (SyntaxError, *_BEYOND):
        return True
    return False


def _is_over(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ends(node.body[-1])


def _parse(lines: list[str]) -> list[Statement]:
    source = "\n".join(lines)
    if "\0" in source:
        raise ValueError("a null byte, for which the parser names no line")
    tree = ast.parse(source)
    compile(tree, "answer", "exec", dont_inherit=True)  # refuses what only parses: a return outside a function
    spans = []
    for node in tree.body:
        start = min(each.lineno for each in (node, *getattr(node, "decorator_list", ())))
        if spans and start <= spans[-1][2]:  # they share a line
            spans[-1][2] = node.end_lineno
        else:
            spans.append([node, start, node.end_lineno])
    return [_statement(node, "\n".join(lines[start - 1 : end])) for node, start, end in spans]


def _statement(node: ast.stmt, text: str) -> Statement:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Name | ast.Constant):
        return Statement(node, text, *[frozenset()] * 3)  # prose, of which there may be much
    tables = [symtable.symtable(text, "answer", "exec")]
    binds = {name.get_name() for name in tables[0].get_symbols() if name.is_assigned() or name.is_imported()}
    changes, uses = set(), set()
    for table in tables:
        uses |= {name.get_name() for name in table.get_symbols() if name.is_global() and name.is_referenced()}
        tables += table.get_children()
    if not isinstance(node, DEFINITIONS):
        owners = (part.value for part in ast.walk(node) if isinstance(part, ast.Attribute | ast.Subscript))
        changes = {owner.id for owner in owners if isinstance(owner, ast.Name)}
    return Statement(node, text, frozenset(binds), frozenset(changes), frozenset(uses))


def _is_beyond(lines: list[str]) -> bool:
    try:
        _parse(lines)
    except SyntaxError:
        return False
    except _BEYOND:
        return True
    return False


def _is_cut_off(errors: dict[int, SyntaxError], lines: list[str]) -> bool:
    """Whether all that is wrong with some lines is that they end too early."""
    return all(_is_end(error, lines[:count]) for count, error in errors.items())


def _is_end(error: SyntaxError, lines: list[str]) -> bool:
    text = "\n".join(lines).rstrip()
    *above, last = text.split("\n")
    if error.msg.startswith("unterminated") or (error.offset or 0) > len(last):
        return (error.lineno or 0) > len(above) and not error.msg.startswith(("unindent", "unexpected"))
    try:
        return codeop.compile_command(text, symbol="exec") is None
    except (SyntaxError, *_BEYOND):
        return False
