"""The language in which a claim is put to the tables: a small part of Python's expressions, and nothing that can act.

    all(t1[b, "idlora", c] >= t1[b, m, c] for b in bases for m in peft for c in single_task)
    fewer(t6["idlora", 128], t6["lora", 32]) == quoted("46")

Names and subscripts look numbers up; + - * / work on them with their rounding (`quantities`); comparisons, and / or,
all(), any() and count() are three-valued (Kleene): True, False, and None where a measurement cannot tell.
Everything is evaluated to its end, also past the first False: what a verdict hinges on is listed, not only the verdict.
"""

import ast
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reproduction.report.audit import pairings, quantities
from reproduction.report.audit.quantities import Quantity, exact

Truth = bool | None


class ExpressionError(ValueError):
    """An expression is none of this language, or asks for what is not there; the message names the part."""


@dataclass(frozen=True)
class Comparison:
    """One comparison that an expression made: left symbol right, and what came of it."""

    left: Any
    symbol: str
    right: Any
    truth: Truth


@dataclass(frozen=True)
class Outcome:
    """What an expression came to: its truth, the value in a few words, and every comparison on the way."""

    truth: Truth
    value: str
    comparisons: tuple[Comparison, ...]


def evaluate(expression: str, names: Mapping[str, Any]) -> Outcome:
    """Decide ``expression`` with ``names`` (tables, lists of keys, facts).

    Raises `ExpressionError` for a syntax error, a construct or name outside the language, a missing cell, a division by
    what may be zero, or an expression that is no statement (a number is neither true nor false).
    """
    expression = " ".join(expression.split())
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise ExpressionError(f"{expression!r} is no expression: {error.msg}") from error
    evaluator = _Evaluator(dict(names))
    try:
        truth = evaluator.visit(tree)
    except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
        raise ExpressionError(f"{expression!r}: {error.args[0] if error.args else error}") from error
    if not (truth is None or isinstance(truth, bool)):
        raise ExpressionError(f"{expression!r} is a {type(truth).__name__}, no statement; compare it with something")
    return Outcome(truth, evaluator.describe(tree, truth), tuple(evaluator.comparisons))


def all_of(truths: Iterable[Truth]) -> Truth:
    """Kleene's and. True for nothing, as Python's."""
    truths = list(truths)
    return False if False in truths else None if None in truths else True


def any_of(truths: Iterable[Truth]) -> Truth:
    """Kleene's or."""
    truths = list(truths)
    return True if True in truths else None if None in truths else False


@dataclass(frozen=True)
class Count:
    """How many of some statements are true: ``least``, and up to ``most`` if those that cannot be told are too."""

    least: int
    most: int

    def compare(self, symbol: str, number: Quantity) -> Truth:
        """None where the numbers from ``least`` to ``most`` do not agree."""
        found = {quantities.compare(symbol, exact(n), number) for n in range(self.least, self.most + 1)}
        return found.pop() if len(found) == 1 else None

    def __str__(self) -> str:
        return f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"


def count(truths: Iterable[Truth]) -> Count:
    """How many are true."""
    truths = list(truths)
    return Count(truths.count(True), len(truths) - truths.count(False))


def quoted(text: str) -> Quantity:
    """A number that the sentence itself prints, with its rounding."""
    return quantities.printed(text)


def within(left: Any, right: Any, margin: Quantity) -> Truth:
    """Whether a score of a real model is less than ``margin`` points behind another; TypeError for anything else."""
    if not hasattr(left, "within"):
        raise TypeError(f"within() is about scores of a real model, not about {left}")
    return left.within(right, margin)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "all": all_of,
    "any": any_of,
    "count": count,
    "within": within,
    "quoted": quoted,
    "abs": abs,
    "mean": quantities.mean,
    "max": lambda numbers: quantities.extreme(numbers, largest=True),
    "min": lambda numbers: quantities.extreme(numbers, largest=False),
    "fewer": quantities.fewer,
    "relative": quantities.relative,
    "share": quantities.share,
    "dagger": lambda number: number.dagger,
    "unmarked": lambda number: not number.dagger,
    "smallest_p": pairings.smallest_p,
    "largest_p": pairings.largest_p,
}
_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_SYMBOLS = {ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<=", ast.Eq: "=="}


@dataclass
class _Evaluator:
    """Walks the tree. A visitor per construct; a construct without one is outside the language."""

    names: dict[str, Any]
    comparisons: list[Comparison] = field(default_factory=list)
    shown: dict[int, str] = field(default_factory=dict)

    def visit(self, node: ast.AST) -> Any:
        visitor = getattr(self, f"visit_{type(node).__name__}", None)
        if visitor is None:
            raise ExpressionError(f"{ast.unparse(node)!r} ({type(node).__name__}) is outside the language")
        return visitor(node)

    def visit_Constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, str):
            return node.value
        if isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return exact(node.value)
        raise ExpressionError(f"{node.value!r} is neither a number nor a name in quotes")

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id not in self.names:
            raise ExpressionError(f"there is no {node.id!r}; there are {', '.join(sorted(self.names))}")
        return self.names[node.id]

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        key = tuple(None if isinstance(part, ast.Slice) else _key(self.visit(part)) for part in parts)
        return self.visit(node.value)[key]

    def visit_List(self, node: ast.List) -> list[Any]:
        return [self.visit(element) for element in node.elts]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Quantity:
        if not isinstance(node.op, ast.USub):
            raise ExpressionError(f"{ast.unparse(node)!r}: of one-sided operators only the minus is in the language")
        return -self.visit(node.operand)

    def visit_BinOp(self, node: ast.BinOp) -> Quantity:
        left, right = self.visit(node.left), self.visit(node.right)
        if type(node.op) not in _ARITHMETIC or not (isinstance(left, Quantity) and isinstance(right, Quantity)):
            raise ExpressionError(f"{ast.unparse(node)!r} is no arithmetic on numbers")
        return _ARITHMETIC[type(node.op)](left, right)

    def visit_BoolOp(self, node: ast.BoolOp) -> Truth:
        truths = [self.visit(value) for value in node.values]
        self.shown[id(node)] = "; ".join(
            self.describe(value, truth) for value, truth in zip(node.values, truths, strict=True)
        )
        return (all_of if isinstance(node.op, ast.And) else any_of)(truths)

    def visit_Compare(self, node: ast.Compare) -> Truth:
        sides = [self.visit(side) for side in (node.left, *node.comparators)]
        self.shown[id(node)] = f"{sides[0]}"
        truths = []
        for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
            if type(op) not in _SYMBOLS:
                raise ExpressionError(f"{ast.unparse(node)!r}: only {' '.join(quantities.SYMBOLS)} compare")
            truths.append(_compare(_SYMBOLS[type(op)], left, right))
            self.comparisons.append(Comparison(left, _SYMBOLS[type(op)], right, truths[-1]))
        return all_of(truths)

    def visit_Call(self, node: ast.Call) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        if name not in FUNCTIONS or node.keywords:
            raise ExpressionError(f"there is no function {name}; there are {', '.join(FUNCTIONS)}, without keywords")
        arguments = [self.visit(argument) for argument in node.args]
        if name in ("all", "any") and len(arguments) == 1:
            truths = arguments[0]
            self.shown[id(node)] = f"{truths.count(True)} of {len(truths)}"
        found = FUNCTIONS[name](*arguments)
        if name == "within":
            left, right, _ = arguments
            self.comparisons.append(Comparison(left, name, right, found))
        return found

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> list[Any]:
        outer = dict(self.names)
        try:
            return [self.visit(node.elt) for _ in self._bindings(node.generators)]
        finally:
            self.names = outer

    def _bindings(self, generators: list[ast.comprehension]) -> Iterator[None]:
        if not generators:
            yield
            return
        first, *rest = generators
        names = [part.id for part in getattr(first.target, "elts", [first.target]) if isinstance(part, ast.Name)]
        for item in self.visit(first.iter):
            self.names |= dict(zip(names, item if isinstance(item, list) and len(names) > 1 else [item], strict=True))
            silent = len(self.comparisons)  # a condition chooses what is compared; it is no part of the claim
            chosen = [self.visit(condition) for condition in first.ifs]
            del self.comparisons[silent:]
            if all_of(chosen):
                yield from self._bindings(rest)

    def describe(self, node: ast.AST, truth: Any) -> str:
        return self.shown.get(id(node), str(truth).lower())


def _compare(symbol: str, left: Any, right: Any) -> Truth:
    if isinstance(left, Quantity) and isinstance(right, Quantity):
        return quantities.compare(symbol, left, right)
    if hasattr(left, "compare"):  # a count, or a cell of ours: each knows what it can be compared with
        return left.compare(symbol, right)
    raise ExpressionError(f"{left} and {right} cannot be compared by {symbol}")


def _key(part: Any) -> str | int:
    """A subscript: a word as it is, a whole number as an int."""
    if isinstance(part, Quantity) and part.value.denominator == 1:
        return int(part.value)
    if isinstance(part, str):
        return part
    raise ExpressionError(f"{part} cannot be looked up; a subscript is a name in quotes or a whole number")
