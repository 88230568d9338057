"""Parameter counts beside the paper's: Table 6, the "# Params (%)" columns, and the data of Figure 1(c)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.records import write_text
from reproduction.report.collect import params_percentages, write_csv
from reproduction.report.documents import booktabs, document, pipes
from reproduction.report.rounding import DIFFERS, ROUNDS, TRUNCATES, agreement
from reproduction.report.tables import EMPTY

TITLE_6 = "Table 6: trainable parameters by rank, LLaMA-3-8B"
NOTE_6 = (
    "Counted on models built from their configs on the meta device and adapted as for training; every method at its "
    "config, its rank alone overridden. Rows that the paper does not print: the router of its §4.2, T of r numbers."
)
CONVENTIONS = (
    "Paper's convention: trainable / (base + adapter + frozen copies of base rows), the copies being pivots × in of "
    "every adapted layer, counted as parameters although none exists here. Plain: trainable / (base + adapter)."
)


@dataclass(frozen=True, kw_only=True)
class Count:
    """Parameters of one method on one base model.

    Attributes:
        model, model_label, method, method_label: names in configs, and what tables call them.
        rank: the method's; None where it has none.
        base_parameters: of the base model alone.
        parameters_trainable, parameters_router: what is trained, and what of it is in a router.
        parameters_total: base and adapter together.
        frozen_copies: entries of base rows that the paper counts as parameters of their own.
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
        """params_pct_paper and params_pct_plain."""
        return params_percentages(vars(self))

    @property
    def row(self) -> dict[str, Any]:
        """As a row of a CSV, with `COLUMNS`."""
        names = {"model": self.model, "method": self.method, "rank": "" if self.rank is None else self.rank}
        counts = {
            "trainable": self.parameters_trainable,
            "router": self.parameters_router,
            "base_parameters": self.base_parameters,
            "total": self.parameters_total,
            "frozen_copies": self.frozen_copies,
        }
        return names | counts | self.percentages


COLUMNS = ("model", "method", "rank", "trainable", "router", "base_parameters", "total", "frozen_copies",
           "params_pct_paper", "params_pct_plain")  # fmt: skip


FIGURE_COLUMNS = ("panel", "model", "method", "rank", "trainable", "params_pct_paper", "params_pct_plain",
                  "base_parameters")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A count under a base key of a table, and what the paper prints for it there ("" where it prints nothing).

    ``ours`` is the number to be set beside the printed one.
    """

    table: str
    base: str
    count: Count
    printed: str
    ours: int | float

    @property
    def agree(self) -> str:
        """`agreement` of our number with the printed one; "" where there is none."""
        return agreement(self.ours, self.printed) if self.printed else ""

    @property
    def title(self) -> str:
        """How a sentence names it."""
        rank = "" if self.count.rank is None else f" r={self.count.rank}"
        return f"{self.count.model_label} {self.count.method_label}{rank}"


def differing(compared: Sequence[Compared]) -> list[Compared]:
    """Those whose number is not the paper's, neither rounded nor cut off."""
    return [each for each in compared if each.agree == DIFFERS]


def summary(compared: Sequence[Compared]) -> str:
    """How many numbers agree with the paper's printed ones, and which of them it cuts off, or which differ."""
    verdicts = Counter(each.agree for each in compared if each.printed)
    told = [f"{verdicts[ROUNDS]} are ours rounded"]
    for verdict, words in ((TRUNCATES, "cut off and not rounded"), (DIFFERS, "another number")):
        if found := [each for each in compared if each.agree == verdict]:
            named = "; ".join(f"{each.title}: {each.ours:,}, printed {each.printed}" for each in found)
            told.append(f"{len(found)} {'is' if len(found) == 1 else 'are'} {words} ({named})")
    agreeing = verdicts[ROUNDS] + verdicts[TRUNCATES]
    return f"{agreeing} of the paper's {verdicts.total()} numbers agree to their printed digits: {', '.join(told)}."


def write_counts(rows: Sequence[tuple[str, Count]], folder: Path) -> list[Path]:
    """counts.csv: (scale, count) of every pair of base and method in the tables."""
    write_csv(folder / "counts.csv", ("scale", *COLUMNS), [{"scale": scale} | count.row for scale, count in rows])
    return [folder / "counts.csv"]


def write_figure1c(panels: Mapping[str, Sequence[Count]], folder: Path) -> list[Path]:
    """figure1c.csv: the counts of each panel of Figure 1(c), a model under the name that the figure prints."""
    rows = [{"panel": panel} | count.row for panel, counts in panels.items() for count in counts]
    labels = {count.model: count.model_label for counts in panels.values() for count in counts}
    printed = [{column: row[column] for column in FIGURE_COLUMNS} | {"model": labels[row["model"]]} for row in rows]
    write_csv(folder / "figure1c.csv", FIGURE_COLUMNS, printed)
    return [folder / "figure1c.csv"]


def write_table6(compared: Sequence[Compared], folder: Path) -> list[Path]:
    """table6.csv, .md and .tex."""
    _write_compared(compared, folder / "table6.csv")
    write_text(folder / "table6.md", table6_markdown(compared))
    write_text(folder / "table6.tex", _table6_latex(compared))
    return [folder / f"table6{ending}" for ending in (".csv", ".md", ".tex")]


def table6_markdown(compared: Sequence[Compared]) -> str:
    """Every count of Table 6 beside the paper's."""
    rows = [
        [
            str(each.count.rank),
            each.count.method_label,
            f"{each.ours:,}",
            f"{each.count.parameters_router:,}",
            each.printed or EMPTY,
            each.agree or EMPTY,
        ]
        for each in compared
    ]
    headings = ["Rank", "Method", "trainable", "of it router", "paper prints", "agree"]
    return document(TITLE_6, summary(compared), pipes(headings, rows), NOTE_6)


def _table6_latex(compared: Sequence[Compared]) -> str:
    """Methods across, ranks down, as in the paper, with whole counts."""
    labels = list(dict.fromkeys(each.count.method_label for each in compared))
    found = {(each.count.rank, each.count.method_label): f"{each.ours:,}" for each in compared}
    rows = [[str(rank), *(found[rank, label] for label in labels)] for rank in dict.fromkeys(rank for rank, _ in found)]
    return booktabs(["Rank", *labels], rows, caption=f"{TITLE_6}. {summary(compared)}", label="table6")


def write_percentages(compared: Sequence[Compared], embedded: Sequence[Count], folder: Path) -> list[Path]:
    """percentages.csv (the paper's scale) and percentages.md (with the embedded bases, which the paper has not)."""
    _write_compared(compared, folder / "percentages.csv")
    write_text(folder / "percentages.md", percentages_markdown(compared, embedded))
    return [folder / f"percentages{ending}" for ending in (".csv", ".md")]


def percentages_markdown(compared: Sequence[Compared], embedded: Sequence[Count]) -> str:
    """Every "# Params (%)" of the paper beside ours in both conventions, then ours of the small bases."""
    headings = ["Model", "Method", "rank", "trainable", "paper's convention (%)", "plain (%)"]
    beside = [
        [*_percentage_cells(each.count), each.printed, each.agree, each.table.removeprefix("table")]
        for each in compared
    ]
    parts = [
        pipes([*headings, "paper prints", "agree", "in Table"], beside),
        "## The embedded scale",
        "Small bases of this project, methods at the ranks of their configs there; the paper has no such numbers.",
        pipes(headings, [_percentage_cells(count) for count in embedded]),
    ]
    return document("Shares of trained parameters", summary(compared), *parts, CONVENTIONS)


def _percentage_cells(count: Count) -> list[str]:
    shares = count.percentages
    return [
        count.model_label,
        count.method_label,
        EMPTY if count.rank is None else str(count.rank),
        f"{count.parameters_trainable:,}",
        f"{shares['params_pct_paper']:.4f}",
        f"{shares['params_pct_plain']:.4f}",
    ]


def _write_compared(compared: Sequence[Compared], path: Path) -> None:
    columns = ("table", "base", *COLUMNS, "printed", "agree")
    write_csv(path, columns, [
        {"table": each.table, "base": each.base, "printed": each.printed, "agree": each.agree} | each.count.row
        for each in compared
    ])  # fmt: skip
