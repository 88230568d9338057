"""Parameter counts beside the paper's: Table 6, the "# Params (%)" columns, and the data of Figure 1(c)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from reproduction.records import write_text
from reproduction.report.collect import params_percentages
from reproduction.report.documents import booktabs, document, pipes, write_csv
from reproduction.report.tables import EMPTY

ROUNDS, TRUNCATES, DIFFERS = "rounds", "truncates", "differs"
"""The paper's number is ours rounded to its digits, ours truncated to its digits, or neither."""

UNITS = {"K": 10**3, "M": 10**6, "B": 10**9}
COLUMNS = ("model", "method", "rank", "trainable", "router", "base_parameters", "total", "frozen_copies",
           "params_pct_paper", "params_pct_plain")  # fmt: skip
FIGURE_COLUMNS = ("panel", "model", "method", "rank", "trainable", "params_pct_paper", "params_pct_plain",
                  "base_parameters")  # fmt: skip
TITLE_6 = "Table 6: trainable parameters by rank, LLaMA-3-8B"
NOTE_6 = (
    "Counted on models built from their configs on the meta device and adapted as for training; every method at its "
    "config, its rank alone overridden. Rows that the paper does not print: the router of its §4.2, T of r numbers."
)
CONVENTIONS = (
    "Paper's convention: trainable / (base + adapter + frozen copies of base rows), the copies being pivots × in of "
    "every adapted layer, counted as parameters although none exists here. Plain: trainable / (base + adapter)."
)


def agreement(value: int | float, printed: str) -> str:
    """Compare the paper's ``printed`` number ("83.9M", "0.56") with ours: `ROUNDS`, `TRUNCATES` or `DIFFERS`.

    Halves round up. Raises ValueError for text that is no number.
    """
    unit = UNITS.get(printed[-1:], 1)
    try:
        shown = Decimal(printed if unit == 1 else printed[:-1])
    except InvalidOperation:
        raise ValueError(f"{printed!r} is no number: digits, and one of {', '.join(UNITS)} behind them") from None
    last_digit = Decimal(1).scaleb(shown.as_tuple().exponent)
    exact = Decimal(str(value)) / unit
    for how, rounding in ((ROUNDS, ROUND_HALF_UP), (TRUNCATES, ROUND_DOWN)):
        if exact.quantize(last_digit, rounding) == shown:
            return how
    return DIFFERS


@dataclass(frozen=True, kw_only=True)
class Count:
    """Parameters of one method on one base model.

    Args:
        model, model_label, method, method_label: names in configs, and their labels in tables.
        rank: the method's rank, None if it has none.
        base_parameters: of the base model alone.
        parameters_trainable, parameters_router: all trained parameters, and those of them in a router.
        parameters_total: base and adapter together.
        frozen_copies: entries of base rows that the paper counts as separate parameters.
    """

    model: str
    model_label: str
    method: str
    method_label: str
    rank: int | None
    base_parameters: int
    parameters_trainable: int
    parameters_router: int
    parameters_total: int
    frozen_copies: int

    @property
    def percentages(self) -> dict[str, float]:
        """The shares params_pct_paper and params_pct_plain."""
        return params_percentages(vars(self))

    @property
    def row(self) -> dict[str, Any]:
        """The row of a CSV with `COLUMNS`."""
        trainable, total = self.parameters_trainable, self.parameters_total
        values = (self.model, self.method, self.rank, trainable, self.parameters_router, self.base_parameters, total)
        return dict(zip(COLUMNS, (*values, self.frozen_copies, *self.percentages.values()), strict=True))


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A count for a base of a table, the paper's printed number ("" for none), and ``ours`` for comparison."""

    table: str
    base: str
    count: Count
    printed: str
    ours: int | float

    @property
    def agree(self) -> str:
        """The `agreement` of our number with the printed one; "" without one."""
        return agreement(self.ours, self.printed) if self.printed else ""


def differing(compared: Sequence[Compared]) -> list[Compared]:
    """Return the counts whose number is the paper's neither rounded nor truncated."""
    return [each for each in compared if each.agree == DIFFERS]


def summary(compared: Sequence[Compared]) -> str:
    """Summarise how many numbers agree with the printed ones, and list those that are truncated or differ."""
    verdicts = Counter(each.agree for each in compared if each.printed)
    parts = [f"{verdicts[ROUNDS]} are ours rounded"]
    for verdict, words in ((TRUNCATES, "cut off and not rounded"), (DIFFERS, "another number")):
        if found := [each for each in compared if each.agree == verdict]:
            named = "; ".join(f"{_title(each.count)}: {each.ours:,}, printed {each.printed}" for each in found)
            parts.append(f"{len(found)} {'is' if len(found) == 1 else 'are'} {words} ({named})")
    agreeing = verdicts[ROUNDS] + verdicts[TRUNCATES]
    return f"{agreeing} of the paper's {verdicts.total()} numbers agree to their printed digits: {', '.join(parts)}."


def _title(count: Count) -> str:
    return f"{count.model_label} {count.method_label}" + ("" if count.rank is None else f" r={count.rank}")


def write_counts(rows: Iterable[tuple[str, Count]], folder: Path) -> list[Path]:
    """Write counts.csv from the (scale, count) of every pair of base and method in the tables."""
    write_csv(folder / "counts.csv", ("scale", *COLUMNS), [{"scale": scale} | count.row for scale, count in rows])
    return [folder / "counts.csv"]


def write_figure1c(panels: Mapping[str, Sequence[Count]], folder: Path) -> list[Path]:
    """Write figure1c.csv, the counts of each panel of Figure 1(c), with model labels."""
    rows = [
        {"panel": panel} | count.row | {"model": count.model_label}
        for panel, counts in panels.items()
        for count in counts
    ]
    write_csv(folder / "figure1c.csv", FIGURE_COLUMNS, [{name: row[name] for name in FIGURE_COLUMNS} for row in rows])
    return [folder / "figure1c.csv"]


def write_table6(compared: Sequence[Compared], folder: Path) -> list[Path]:
    """Write table6.csv, .md and .tex; the last has methods across and ranks down, like the paper."""
    paths = [folder / f"table6{ending}" for ending in (".csv", ".md", ".tex")]
    _write_compared(compared, paths[0])
    rows = [
        [str(e.count.rank), e.count.method_label, f"{e.ours:,}", f"{e.count.parameters_router:,}", e.printed or EMPTY,
         e.agree or EMPTY]
        for e in compared
    ]  # fmt: skip
    headings = ["Rank", "Method", "trainable", "of it router", "paper prints", "agree"]
    write_text(paths[1], document(TITLE_6, summary(compared), pipes(headings, rows), NOTE_6))
    labels = list(dict.fromkeys(each.count.method_label for each in compared))
    found = {(each.count.rank, each.count.method_label): f"{each.ours:,}" for each in compared}
    rows = [[str(rank), *(found[rank, label] for label in labels)] for rank in dict.fromkeys(rank for rank, _ in found)]
    caption = f"{TITLE_6}. {summary(compared)}"
    write_text(paths[2], booktabs(["Rank", *labels], rows, caption=caption, label="table6"))
    return paths


def write_percentages(compared: Sequence[Compared], embedded: Sequence[Count], folder: Path) -> list[Path]:
    """Write percentages.csv (the paper's scale) and percentages.md (also the embedded bases, absent from the paper)."""
    paths = [folder / "percentages.csv", folder / "percentages.md"]
    _write_compared(compared, paths[0])
    headings = ["Model", "Method", "rank", "trainable", "paper's convention (%)", "plain (%)"]
    beside = [[*_shares(each.count), each.printed, each.agree, each.table.removeprefix("table")] for each in compared]
    text = document(
        "Shares of trained parameters",
        summary(compared),
        pipes([*headings, "paper prints", "agree", "in Table"], beside),
        "## The embedded scale",
        "Small bases of this project, methods at the ranks of their configs there; the paper has no such numbers.",
        pipes(headings, [_shares(count) for count in embedded]),
        CONVENTIONS,
    )
    write_text(paths[1], text)
    return paths


def _shares(count: Count) -> list[str]:
    rank = EMPTY if count.rank is None else str(count.rank)
    shares = [f"{share:.4f}" for share in count.percentages.values()]
    return [count.model_label, count.method_label, rank, f"{count.parameters_trainable:,}", *shares]


def _write_compared(compared: Sequence[Compared], path: Path) -> None:
    columns = ("table", "base", *COLUMNS, "printed", "agree")
    own = ({name: getattr(each, name) for name in ("table", "base", "printed", "agree")} for each in compared)
    write_csv(path, columns, [names | each.count.row for names, each in zip(own, compared, strict=True)])
