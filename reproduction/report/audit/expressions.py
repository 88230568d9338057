"""The expression language of the claims: a small, side-effect-free subset of Python's expressions.

    all(t1[b, "idlora", c] >= t1[b, m, c] for b in bases for m in peft for c in single_task)
    fewer(t6["idlora", 128], t6["lora", 32]) == quoted("46")

Names and subscripts look numbers up. The operators + - * / respect rounding (`quantities`). Comparisons, and / or,
all(), any() and count() are three-valued (Kleene): True, False, and None if a measurement does not decide. Evaluation
does not stop at the first False, because the report lists every failed comparison.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from reproduction.report.audit import pairings, quantities
from reproduction.report.audit.quantities import SYMBOLS, Quantity, exact

Truth = bool | None


class ExpressionError(ValueError):
    """An expression uses an unknown construct or a missing value; the message names the part."""


@dataclass(frozen=True)
class Comparison:
    """One comparison within an expression: both sides, the symbol and the result."""

    left: Any
    symbol: str
    right: Any
    truth: Truth


@dataclass(frozen=True)
class Outcome:
    """The result of an expression: its truth, the value in a few words, and every comparison made."""

    truth: Truth
    value: str
    comparisons: tuple[Comparison, ...]


def evaluate(expression: str, names: Mapping[str, Any]) -> Outcome:
    """Evaluate ``expression`` with ``names`` (tables, lists of keys, facts).

    Raises `ExpressionError` for a syntax error, an unknown construct or name, a missing cell, a division by an interval
    that contains zero, or an expression that is no statement (a number is neither true nor false).
    """
    expression = " ".join(expression.split())
    evaluator = _Evaluator(names)
    try:
        tree = ast.parse(expression, mode="eval").body
        truth = evaluator.visit(tree)
    except (SyntaxError, KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ExpressionError(f"{expression!r}: {error.args[0] if error.args else error}") from error
    if not (truth is None or isinstance(truth, bool)):
        raise ExpressionError(f"{expression!r} is a {type(truth).__name__}, no statement; compare it with something")
    return Outcome(truth, evaluator.describe(tree, truth), tuple(evaluator.comparisons))


def all_of(truths: Sequence[Truth]) -> Truth:
    """Kleene's and; True for an empty sequence, like Python's."""
    return False if False in truths else None if None in truths else True


def any_of(truths: Sequence[Truth]) -> Truth:
    """Kleene's or."""
    return True if True in truths else None if None in truths else False


@dataclass(frozen=True)
class Count:
    """The number of true statements: ``least``, or up to ``most`` if the undecided ones are true too."""

    least: int
    most: int

    def compare(self, symbol: str, number: Quantity) -> Truth:
        """Compare with a number; None if the counts from ``least`` to ``most`` give different answers."""
        found = {exact(n).compare(symbol, number) for n in range(self.least, self.most + 1)}
        return found.pop() if len(found) == 1 else None

    def __str__(self) -> str:
        return f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "all": all_of,
    "any": any_of,
    "count": lambda truths: Count(truths.count(True), len(truths) - truths.count(False)),
    "within": lambda left, right, margin: left.within(right, margin),
    "quoted": quantities.printed,
    "abs": abs,
    "mean": quantities.mean,
    "max": partial(quantities.extreme, max),
    "min": partial(quantities.extreme, min),
    "fewer": quantities.fewer,
    "relative": quantities.relative,
    "share": quantities.share,
    "dagger": lambda number: number.dagger,
    "unmarked": lambda number: not number.dagger,
    "smallest_p": pairings.smallest_p,
    "largest_p": pairings.largest_p,
}
ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
COMPARED = dict(zip((ast.Gt, ast.GtE, ast.Lt, ast.LtE, ast.Eq), SYMBOLS, strict=True))


class _Evaluator:
    """Evaluates a syntax tree; any construct without a case in `visit` is an error."""

    def __init__(self, names: Mapping[str, Any]):
        self.names = dict(names)
        self.comparisons: list[Comparison] = []
        self.words: dict[ast.AST, str] = {}  # text of a statement, if it is more than its truth

    def visit(self, node: ast.AST) -> Any:
        match node:
            case ast.Constant(value=str() as word):
                return word
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return exact(number)
            case ast.Name(id=name):
                if name not in self.names:
                    raise ExpressionError(f"there is no {name!r}; there are {', '.join(sorted(self.names))}")
                return self.names[name]
            case ast.Subscript(value=table, slice=place):
                parts = place.elts if isinstance(place, ast.Tuple) else [place]
                return self.visit(table)[tuple(map(self._key, parts))]
            case ast.List(elts=elements):
                return [self.visit(element) for element in elements]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.visit(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                sides = self.visit(left), self.visit(right)
                if not all(isinstance(side, Quantity) for side in sides):
                    raise ExpressionError(f"{ast.unparse(node)!r} is no arithmetic on numbers")
                return ARITHMETIC[type(op)](*sides)
            case ast.BoolOp(op=op, values=parts):
                truths = [self.visit(part) for part in parts]
                self.words[node] = "; ".join(map(self.describe, parts, truths))
                return (all_of if isinstance(op, ast.And) else any_of)(truths)
            case ast.Compare(left=first, ops=ops, comparators=rest) if {type(op) for op in ops} <= COMPARED.keys():
                sides = [self.visit(side) for side in (first, *rest)]
                self.words[node] = f"{sides[0]}"
                symbols = [COMPARED[type(op)] for op in ops]
                return all_of([self._compare(*each) for each in zip(sides, symbols, sides[1:], strict=False)])
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
                return self._call(node, name, [self.visit(argument) for argument in arguments])
            case ast.GeneratorExp(elt=element, generators=generators):
                outer = self.names
                try:
                    return [self.visit(element) for _ in self._bindings(generators)]
                finally:
                    self.names = outer
        raise ExpressionError(f"{ast.unparse(node)!r} ({type(node).__name__}) is outside the language")

    def describe(self, node: ast.AST, truth: Any) -> str:
        return self.words.get(node, str(truth).lower())

    def _compare(self, left: Any, symbol: str, right: Any) -> Truth:
        comparable = isinstance(right, Quantity) if isinstance(left, Quantity) else hasattr(left, "compare")
        if not comparable:
            raise ExpressionError(f"{left} and {right} cannot be compared by {symbol}")
        truth = left.compare(symbol, right)
        self.comparisons.append(Comparison(left, symbol, right, truth))
        return truth

    def _call(self, node: ast.Call, name: str, arguments: list[Any]) -> Any:
        found = FUNCTIONS[name](*arguments)
        if name in ("all", "any"):
            (truths,) = arguments
            self.words[node] = f"{truths.count(True)} of {len(truths)}"
        elif name == "within":
            self.comparisons.append(Comparison(arguments[0], name, arguments[1], found))
        return found

    def _key(self, part: ast.AST) -> str | int | None:
        """Convert a subscript: a string stays, a whole number becomes an int, a colon None."""
        match None if isinstance(part, ast.Slice) else self.visit(part):
            case None | str() as key:
                return key
            case Quantity(value=number) if number.denominator == 1:
                return int(number)
            case other:
                raise ExpressionError(f"{other} cannot be looked up; a subscript is a name in quotes or a whole number")

    def _bindings(self, generators: list[ast.comprehension]) -> Iterator[None]:
        """Bind the names of ``generators`` in turn, like nested loops."""
        if not generators:
            yield
            return
        first, *rest = generators
        names = [part.id for part in getattr(first.target, "elts", [first.target]) if isinstance(part, ast.Name)]
        for item in self.visit(first.iter):
            values = item if isinstance(item, list) and len(names) > 1 else [item]
            self.names = self.names | dict(zip(names, values, strict=True))
            before = len(self.comparisons)  # a condition selects what is compared and is not part of the claim
            chosen = [self.visit(condition) for condition in first.ifs]
            del self.comparisons[before:]
            if all_of(chosen):
                yield from self._bindings(rest)
