"""Find Python statements in prose, and the names that they bind and use, by parsing. Nothing is executed.

From a start line, the longest run of lines that parses is code. A statement ends only where it cannot continue: at a
line outside of it, after its last return, or where the text is cut off. Code with an error inside is therefore dropped
as a whole.
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
"""Errors of the parser without a line number: text too deep, too long, or with a null byte."""

_MOST_TRIES = 300
"""Maximum number of parses per text: code in prose takes a few per piece, noise would take thousands."""


class Statement(NamedTuple):
    """A module-level statement, its text, and the names that it binds, changes (`x[0] = …`, `x.sort()`) and uses."""

    node: ast.stmt
    text: str
    binds: frozenset[str]
    changes: frozenset[str]
    uses: frozenset[str]


@functools.lru_cache(maxsize=32)  # the parts of an answer are scanned repeatedly
def scan(text: str) -> tuple[list[list[Statement]], list[str]]:
    """Return the unindented statements of a text, in contiguous chunks, and the lines that are not code."""
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
    """Parse as many leading lines as possible; return statements, number of lines, and errors by number of lines."""
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
    """Whether a statement always leaves its function."""
    if isinstance(node, ast.If):
        return bool(node.orelse) and ends(node.body[-1]) and ends(node.orelse[-1])
    return isinstance(node, ast.Return | ast.Raise)


@functools.lru_cache(maxsize=1024)
def is_words(line: str) -> bool:
    """Whether a line, stripped, cannot begin a statement."""
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
    compile(tree, "answer", "exec", dont_inherit=True)  # rejects a return outside a function, which parses
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
        return Statement(node, text, *[frozenset()] * 3)  # prose that parses: skip the symbol table
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
    """Whether every error is only that the text ends too early."""
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
