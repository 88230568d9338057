"""What the sentences about a real model are made of: the committed tables, and the words that several need."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reproduction.report.grid import SMALL, UNTUNED, load_grid
from reproduction.report.measures import measure_of
from reproduction.report.rates import spelled
from reproduction.report.real.words import joined, short, stand
from reproduction.report.reference import reference_folder
from reproduction.report.standings import (
    BEST_RATES,
    CONTROLS,
    LEVEL,
    LONGER,
    LOSS,
    PAPER_RATE,
    VERDICTS,
    Block,
    Pair,
    Row,
    read_block,
    read_rows,
    runs_and_intervals,
)

SUBJECT, LORA = "idlora", "lora"

NAMES = {
    "idlora": "ID-LoRA", "fft": "full fine-tuning",
    "idlora_no_rb": "the same method without it at the same count",
    "idlora_no_rb_same_rank": "the same method without it at the same rank",
}  # fmt: skip
"""What the sentences call a method whose row of the table says something else."""

ALIKE = {BEST_RATES: "table2", CONTROLS: "table_controls"}
"""Bases and tables whose runs differ by method alone: as long, each method at its best rate."""

NATS = measure_of("nats_per_token")


@dataclass(frozen=True, kw_only=True)
class Real:
    """Table 2 at the ``best`` rates and at the ``paper``'s one, its methods trained ``longer``, the ``controls``;
    Table 1 (``single``) at both, ``budgets`` (Table 7) and ``clusters`` (Table 8); ``rates`` by method; ``worth``, a
    row a run; ``alike``, the experiments whose runs differ by method alone; ``known``, what known answers score in
    Table 1, ``single_steps`` how long its methods are trained, and ``single_rates`` at which rates in its two blocks;
    ``headings`` of the columns of Tables 1 and 2; ``parameters`` of the model.
    """

    best: Block
    paper: Block
    longer: Block
    controls: Block
    single: Block
    single_paper: Block
    budgets: Block
    clusters: Block
    rates: Mapping[str, Row]
    worth: Sequence[Row]
    alike: frozenset[str]
    known: Sequence[Row]
    single_steps: str
    single_rates: Mapping[str, str]
    headings: Mapping[str, str]
    parameters: int | None

    @property
    def at_best(self) -> Block:
        """Table 2, or the controls where it was not run."""
        return self.best if (SUBJECT, LORA, LOSS) in self.best.pairs else self.controls

    def note(self, pairs: Iterable[Pair]) -> str:
        """ " (one run each …)" where the pairs have another number of runs than the losses at the best rates."""
        told = runs_and_intervals(pairs)
        return "" if told == runs_and_intervals(to_lora(self.at_best)) else f" ({told})"

    def sources(self, block: Block, second: str) -> list[Pair]:
        """ID-LoRA against another method in the losses by source."""
        pairs = (block.pairs.get((SUBJECT, second, column)) for column in self.headings)
        return [pair for pair in pairs if pair and pair.measure.lower_is_better and pair.column != LOSS]

    @property
    def paper_rate(self) -> str:
        rate = self.rates.get(SUBJECT, {}).get("paper_rate")
        return f"the paper's {spelled(float(rate))}" if rate else "the paper's rate"


def read_real(results: Path, experiments: Path) -> Real:
    """All of it that the reference of the small scale has. Raises `RecordError` where a file cannot be read, and
    `GridError`.
    """
    folder = reference_folder(results, SMALL)
    grids = {base: load_grid(experiments / table) for base, table in ALIKE.items()}
    single = load_grid(experiments / "table1")
    columns = [*single.columns_at(SMALL), *grids[BEST_RATES].columns_at(SMALL)]
    trials = read_rows(experiments / "tuning" / SMALL / "trials.csv")
    return Real(
        best=read_block(folder, "table2", BEST_RATES),
        paper=read_block(folder, "table2", PAPER_RATE),
        longer=read_block(folder, "table_longer", LONGER),
        controls=read_block(folder, "table_controls", CONTROLS),
        single=read_block(folder, "table1", BEST_RATES),
        single_paper=read_block(folder, "table1", PAPER_RATE),
        budgets=read_block(folder, "table7", BEST_RATES),
        clusters=read_block(folder, "table8", CONTROLS),
        rates={row["method"]: row for row in read_rows(folder / "tables" / "rates.csv")},
        worth=read_rows(folder / "tables" / "worth.csv"),
        alike=frozenset(
            grid.experiment(column, base) for base, grid in grids.items() for column in grid.columns_at(SMALL)
        ),
        known=read_rows(folder / "tables" / "table1_known.csv"),
        single_steps=" or ".join(
            dict.fromkeys(row["steps"] for row in trials if row["experiment"] in single.experiments)
        ),
        single_rates={base: single.block(base, SMALL) for base in (BEST_RATES, PAPER_RATE)},
        headings={column.id: column.heading_at(SMALL).replace(",", "") for column in columns},
        parameters=_parameters(read_rows(folder / "metrics.csv")),
    )


def losses_told(block: Block) -> str:
    """The losses of LoRA and ID-LoRA, and where each method stands to LoRA; nothing where the two were not compared."""
    against = to_lora(block)
    if SUBJECT not in [pair.first for pair in against]:
        return ""
    against_lora = stand([(pair, called(block, pair.first)) for pair in against], of="LoRA:")
    values = [f"{mean_loss(block.rows[method])} for {called(block, method)}" for method in (LORA, SUBJECT)]
    return f"{joined(values)}; {against_lora}"


def to_lora(block: Block) -> list[Pair]:
    found = (block.pairs.get((method, LORA, LOSS)) for method in block.rows if method != UNTUNED)
    return [pair for pair in found if pair]


def scored(block: Block) -> list[Pair]:
    """Every trained method against LoRA in every column that is no loss."""
    trained = (pair for (first, second, _), pair in block.pairs.items() if second == LORA and first != UNTUNED)
    return [pair for pair in trained if not pair.measure.lower_is_better]


def scores_told(real: Real, block: Block, pairs: Sequence[Pair]) -> str:
    """ "GSM8K 2.5 and 2.8, level (+0.3 [-0.8, +1.4])": LoRA's score, ID-LoRA's, and where ID-LoRA stands."""
    names = short([real.headings[pair.column] for pair in pairs])
    values = [" and ".join(block.rows[method][pair.column] for method in (LORA, SUBJECT)) for pair in pairs]
    stands = [f"{pair.verdict.split()[0]} {pair.amount}" for pair in pairs]
    return "; ".join(map("{} {}, {}".format, names, values, stands))


def standing(real: Real, pairs: Iterable[Pair], *, amounts: Iterable[str] = ()) -> str:
    """ "ahead on A and B; level on C": columns by verdict, with how far for the verdicts of ``amounts``."""
    groups: dict[str, list[Pair]] = {verdict: [] for verdict in VERDICTS}
    for pair in pairs:
        groups[pair.verdict].append(pair)
    told = []
    for verdict, own in groups.items():
        names = short([real.headings[pair.column] for pair in own])
        if verdict in amounts:
            names = [f"{name} {pair.amount}" for name, pair in zip(names, own, strict=True)]
        if own:
            told.append(f"{verdict.split()[0]} on {joined(names)}")
    return "; ".join(told)


def others_told(real: Real, block: Block, pairs: Iterable[Pair]) -> str:
    """Where the methods but ID-LoRA are ahead of LoRA or behind it."""
    others: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.first != SUBJECT and pair.verdict != LEVEL:
            others.setdefault(pair.first, []).append(pair)
    named = [f"{called(block, method)} is {standing(real, own)}" for method, own in others.items()]
    return f"Of the others, {'; '.join(named)}." if named else "All others are level with LoRA."


def trial_told(real: Real, column: str) -> str:
    """By how much ID-LoRA's loss of one trial is below or above LoRA's; nothing where one is missing or diverged."""
    values = [float(real.rates.get(method, {}).get(column) or math.inf) for method in (SUBJECT, LORA)]
    if not all(map(math.isfinite, values)):
        return ""
    difference = values[0] - values[1]
    return f"ID-LoRA's loss is {NATS.text(abs(difference))} {'below' if difference < 0 else 'above'} LoRA's"


def called(block: Block, method: str) -> str:
    return NAMES.get(method) or block.rows[method]["method_label"]


def mean_loss(row: Row) -> str:
    """A mean loss, and its spread over the seeds where there are several."""
    spread = row.get(f"{LOSS}_spread")
    return row[LOSS] + (f" ± {spread}" if spread else "")


def millions(row: Row) -> str:
    """Trained parameters."""
    return f"{int(row['parameters_trainable']) / 1e6:.2f}M"


def _parameters(metrics: Iterable[Row]) -> int | None:
    untuned = (row["parameters_total"] for row in metrics if row["method"] == UNTUNED)
    return next((int(total) for total in untuned if total), None)
