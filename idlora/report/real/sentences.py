"""What is said of a real model. Every number is a table's and every "ahead", "behind" and "level" that of an interval
over seeds and items (over items where there is one seed), so each sentence can come out either way.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from idlora.records import read_json, write_text
from idlora.report.grid import SMALL, UNTUNED, load_grid
from idlora.report.intervals import CONFIDENCE
from idlora.report.measures import measure_of
from idlora.report.ordering import AT_FLOOR
from idlora.report.rates import spelled
from idlora.report.real.blocks import (
    AHEAD,
    BEHIND,
    BEST_RATES,
    CONTROLS,
    LEVEL,
    LONGER,
    PAPER_RATE,
    VERDICTS,
    Block,
    Pair,
    Row,
    read_block,
    read_rows,
    runs,
)
from idlora.report.real.words import joined, short, stand
from idlora.report.real.worth import go_together
from idlora.report.reference import reference_folder
from idlora.report.walltime import sentence

COLUMN = "loss"
"""The mean held-out loss over the sources."""

SUBJECT, LORA, EQUAL, UNBOOSTED, RANDOM = "idlora", "lora", "lora_equal", "idlora_no_rb", "idlora_random"
FROZEN = (
    RANDOM, "idlora_serial", "idlora_largest_norm", "idlora_smallest_norm", "idlora_pivoted_qr",
    "idlora_gaussian", "idlora_orthonormal", "idlora_equal_norm",
)  # fmt: skip
"""The controls that freeze something else: other rows, and no rows."""

NAMES = {
    "idlora": "ID-LoRA", "fft": "full fine-tuning",
    "idlora_no_rb": "the same method without it at the same count",
    "idlora_no_rb_same_rank": "the same method without it at the same rank",
}  # fmt: skip
"""What the sentences call a method whose row of the table says something else."""

ALIKE = {BEST_RATES: "table2", CONTROLS: "table_controls"}
"""Bases and tables whose runs differ by method alone: as long, each method at its best rate."""

LOSS = measure_of("nats_per_token")


@dataclass(frozen=True, kw_only=True)
class Real:
    """What the sentences are made of: Table 2 at the ``best`` rates and at the ``paper``'s one, its methods trained
    ``longer``, the ``controls``; ``rates`` by method; ``worth``, a row a run; ``alike``, the experiments whose
    runs differ by method alone; ``headings`` of Table 2's columns; ``parameters`` of the model.
    """

    best: Block
    paper: Block
    longer: Block
    controls: Block
    rates: Mapping[str, Row]
    worth: Sequence[Row]
    alike: frozenset[str]
    headings: Mapping[str, str]
    parameters: int | None

    @property
    def at_best(self) -> Block:
        """Table 2, or the controls where it was not run."""
        return self.best if (SUBJECT, LORA, COLUMN) in self.best.pairs else self.controls

    def note(self, pairs: Iterable[Pair]) -> str:
        """ " (one run each …)" where the pairs have another number of runs than the losses at the best rates."""
        told = runs(pairs)
        return "" if told == runs(_against_lora(self.at_best)) else f" ({told})"

    def sources(self, block: Block, second: str) -> list[Pair]:
        """ID-LoRA against another method in the losses by source."""
        columns = (column for column in self.headings if column.startswith(f"{COLUMN}_"))
        return [pair for column in columns if (pair := block.pairs.get((SUBJECT, second, column)))]

    @property
    def paper_rate(self) -> str:
        rate = self.rates.get(SUBJECT, {}).get("paper_rate")
        return f"the paper's {spelled(float(rate))}" if rate else "the paper's rate"


def real_sentences(results: Path, experiments: Path) -> list[str]:
    """The sentences, as Markdown; none where there is no reference of the small scale with Table 2 or the controls.

    One whose files or methods the reference lacks is left out. ``experiments`` has the columns' headings. Raises
    `RecordError` where a file cannot be read, and `GridError`.
    """
    folder = reference_folder(results, SMALL)
    if not folder.is_dir():
        return []
    grids = {base: load_grid(experiments / table) for base, table in ALIKE.items()}
    table2 = grids[BEST_RATES].columns_at(SMALL)
    real = Real(
        best=read_block(folder, "table2", BEST_RATES),
        paper=read_block(folder, "table2", PAPER_RATE),
        longer=read_block(folder, "table_longer", LONGER),
        controls=read_block(folder, "table_controls", CONTROLS),
        rates={row["method"]: row for row in read_rows(folder / "tables" / "rates.csv")},
        worth=read_rows(folder / "tables" / "worth.csv"),
        alike=frozenset(
            grid.experiment(column, base) for base, grid in grids.items() for column in grid.columns_at(SMALL)
        ),
        headings={column.id: column.heading_at(SMALL).replace(",", "") for column in table2},
        parameters=_parameters(read_rows(folder / "metrics.csv")),
    )
    if SUBJECT not in real.at_best.rows:
        return []
    say = (_who_is_ahead, _learning_rate, _longer, _benchmarks, _worth, _frozen, _limits)
    return [f"**{title}.** {text}" for title, text in (each(real) for each in say) if text]


def write_real(results: Path, experiments: Path) -> Path | None:
    """Write the sentences, and how long the runs took, into the reference's README.md.

    Returns its path, None where there is nothing to say.
    """
    said = real_sentences(results, experiments)
    if not said:
        return None
    path = reference_folder(results, SMALL) / "README.md"
    pointer = "`report.html` has every table, figure and test; `tables/`, `significance/` and `records/` the numbers."
    provenance = path.with_name("provenance.json")
    took = sentence(read_json(provenance).get("time", [])) if provenance.is_file() else ""
    parts = ["# ID-LoRA on a real pre-trained model", listed(said), took, pointer]
    write_text(path, "\n\n".join(filter(None, parts)) + "\n")
    return path


def listed(sentences: Iterable[str]) -> str:
    """The sentences as they stand in a Markdown file."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _who_is_ahead(real: Real) -> tuple[str, str]:
    rows = real.at_best.rows
    parts = [
        f'Here and below "ahead", "level" and "behind" go by {100 * CONFIDENCE:.0f} % intervals over seeds and items '
        "(the tables' † by items alone); signed numbers in parentheses are leads, positive for a lower loss or a "
        "higher score."
    ]
    if told := _losses(real.at_best):
        seeds = runs(_against_lora(real.at_best))
        parts.append(f"At each method's best learning rate ({seeds}) the held-out loss in nats a token is {told}.")
        parts.append(f"LoRA trains {_millions(rows[LORA])} parameters, ID-LoRA {_millions(rows[SUBJECT])}.")
    if pair := real.controls.pairs.get((EQUAL, SUBJECT, COLUMN)):
        count = f"LoRA at an equal count ({_millions(real.controls.rows[EQUAL])})"
        parts.append(f"{count} is {pair.verdict} ID-LoRA {pair.amount}{real.note([pair])}.")
    return "Who is ahead", " ".join(parts)


def _learning_rate(real: Real) -> tuple[str, str]:
    """At the paper's rate for all; where Table 2 has no such block, by the trials that chose the rates."""
    parts = []
    best = [real.rates.get(method, {}).get("best_rate") for method in (SUBJECT, LORA)]
    if all(best):
        parts.append(f"The best rates are {' for ID-LoRA and '.join(spelled(float(rate)) for rate in best)} for LoRA.")
    if told := _losses(real.paper):
        against = _against_lora(real.paper)
        ahead = {block.pairs[SUBJECT, LORA, COLUMN].verdict for block in (real.paper, real.at_best)}
        decides = (
            "does not decide which" if len(ahead) == 1 else "decides whether one" if LEVEL in ahead else "decides which"
        )
        few = f" ({runs(against).partition(',')[0]} at the paper's rate)" if real.note(against) else ""
        parts.append(f"At {real.paper_rate} for all{real.note(against)} the loss is {told}.")
        parts.append(f"The learning rate {decides} of ID-LoRA and LoRA is ahead{few}.")
    else:
        trials = [(_trial(real, "loss_paper"), f"at {real.paper_rate}"), (_trial(real, "loss_best"), "at the best")]
        if said := [f"{where} {difference}" for difference, where in trials if difference]:
            parts.append(f"By the validation loss of one run a rate, {joined(said)}.")
    rows = [real.rates.get(method, {}) for method in (SUBJECT, LORA)]
    if all(row.get("largest_eigenvalue") and row.get("a_row_norm") for row in rows):
        sharp, norms = ([f"{float(row[name]):.3g}" for row in rows] for name in ("largest_eigenvalue", "a_row_norm"))
        parts.append(
            f"Where training starts, the largest Hessian eigenvalue over what is trained is {sharp[0]} for ID-LoRA and "
            f"{sharp[1]} for LoRA, whose rows of A are {norms[1]} long on average where the frozen ones are {norms[0]}."
        )
    return "The learning rate", " ".join(parts)


def _longer(real: Real) -> tuple[str, str]:
    """After the paper's two epochs: who was trained so long, and where ID-LoRA stands, by source and by benchmark."""
    if not (told := _losses(real.longer)):
        return "Longer training", ""
    against = _against_lora(real.longer)
    trained = [LORA, *(pair.first for pair in against)]
    left_out = (real.best.rows.keys() | real.longer.rows.keys()) - {UNTUNED, *trained}  # no row: not run
    who = f"Only {joined([_name(real.longer, method) for method in trained])}" if left_out else "All methods"
    parts = [f"{who} were trained for the paper's two epochs{real.note(against)}. The loss is {told}."]
    if sources := real.sources(real.longer, LORA):
        parts.append(f"By source ID-LoRA is {_where(real, sources, amounts=(AHEAD, BEHIND))}.")
    if ours := [pair for pair in _scored(real.longer) if pair.first == SUBJECT and not pair.floor]:
        parts.append(f"Scores in % of LoRA and ID-LoRA: {_scores(real, real.longer, ours)}.")
    if difference := _trial(real, "longer_paper_heldout"):
        after = real.rates[SUBJECT]["longer_steps"]
        parts.append(f"At {real.paper_rate}, one run each, {difference} after {after} steps.")
    return "Longer training", " ".join(parts)


def _benchmarks(real: Real) -> tuple[str, str]:
    """Who is ahead in the columns that are no losses; what is at chance or zero is named, and nothing said of it."""
    parts = []
    blocks = ((real.best, "the best rates"), (real.paper, real.paper_rate))
    floors = [_floors(real, _scored(block)) for block, _ in blocks]
    if floors[0] == floors[1] != "":
        parts.append(f"Nobody is called ahead on {floors[0]}.")
    for (block, rate), own in zip(blocks, floors, strict=True):
        against = _scored(block)
        ours = [pair for pair in against if pair.first == SUBJECT]
        at = f"At {rate}{real.note(against)}" if ours else ""
        if own and floors[0] != floors[1]:
            parts.append(f"{at} nobody is called ahead on {own}.")
        if not (shown := [pair for pair in ours if not pair.floor]):
            continue
        if block is real.best:
            parts.append(f"{at}, LoRA and ID-LoRA score in %: {_scores(real, block, shown)}.")
        else:
            parts.append(f"{at} ID-LoRA is {_where(real, shown, amounts=VERDICTS)}.")
        others: dict[str, list[Pair]] = {}
        for pair in against:
            if pair.first != SUBJECT and pair.verdict != LEVEL:
                others.setdefault(pair.first, []).append(pair)
        named = [f"{_name(block, method)} is {_where(real, pairs)}" for method, pairs in others.items()]
        parts.append(f"Of the others, {'; '.join(named)}." if named else "All others are level with LoRA.")
    return "Benchmarks", " ".join(parts)


def _floors(real: Real, pairs: Iterable[Pair]) -> str:
    """The columns at chance or zero, and at which: "MMLU (at chance)"."""
    floors: dict[str, dict[str, None]] = {}
    for pair in pairs:
        if pair.floor:
            floors.setdefault(AT_FLOOR[pair.floor], {})[real.headings[pair.column]] = None
    return joined([f"{joined(short(columns))} ({floor})" for floor, columns in floors.items()])


def _scored(block: Block) -> list[Pair]:
    """Every trained method against LoRA in every column that is no loss."""
    trained = (pair for (first, second, _), pair in block.pairs.items() if second == LORA and first != UNTUNED)
    return [pair for pair in trained if not pair.measure.lower_is_better]


def _scores(real: Real, block: Block, pairs: Sequence[Pair]) -> str:
    """ "GSM8K 2.5 and 2.8, level (+0.3 [-0.8, +1.4])": LoRA's score, ID-LoRA's, and where ID-LoRA stands."""
    names = short([real.headings[pair.column] for pair in pairs])
    values = [" and ".join(block.rows[method][pair.column] for method in (LORA, SUBJECT)) for pair in pairs]
    stands = [f"{pair.verdict.split()[0]} {pair.amount}" for pair in pairs]
    return "; ".join(map("{} {}, {}".format, names, values, stands))


def _where(real: Real, pairs: Iterable[Pair], *, amounts: Iterable[str] = ()) -> str:
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


def _worth(real: Real) -> tuple[str, str]:
    floors = {pair.column: AT_FLOOR[pair.floor] for pair in _scored(real.best) if pair.floor}
    return "What a loss difference is worth", go_together(real.worth, real.alike, real.headings, notes=floors)


def _frozen(real: Real) -> tuple[str, str]:
    def against(methods: Iterable[str]) -> list[tuple[Pair, str]]:
        pairs = (real.controls.pairs.get((SUBJECT, method, COLUMN)) for method in methods)
        return [(pair, _name(real.controls, pair.second)) for pair in pairs if pair]

    def by_source(method: str, title: str) -> str:
        sources = real.sources(real.controls, method)
        return f" By source{title}: {_where(real, sources)}." if sources else ""

    parts = []
    if rows := against(FROZEN):
        note = real.note(pair for pair, _ in rows)
        random = by_source(RANDOM, ", against rows at random")
        parts.append(f"As frozen bases{note}, the rows that PMRC picks are {stand(rows)}.{random}")
    if boosting := against((UNBOOSTED, "idlora_no_rb_same_rank")):
        note = real.note(pair for pair, _ in boosting)
        same = ", at the same count" if len(boosting) > 1 else ""
        parts.append(f"With Rank Boosting{note} ID-LoRA is {stand(boosting)}.{by_source(UNBOOSTED, same)}")
    return "Which rows, and whether rows", " ".join(parts)


def _limits(real: Real) -> tuple[str, str]:
    row, steps = real.at_best.rows[SUBJECT], real.rates.get(SUBJECT, {}).get("steps")
    size = f" of {real.parameters / 1e6:.0f}M parameters" if real.parameters else ""
    against = _against_lora(real.at_best)
    seeds = f" with {runs(against).partition(',')[0]}" if against else ""
    long = f", trained for {steps} steps{seeds} unless it says otherwise" if steps else ""
    scored = short(dict.fromkeys(real.headings[pair.column] for pair in _scored(real.best)))
    by = f"held-out loss, {joined(scored)}" if scored else "held-out loss alone"
    return "What it is not", (
        f"Everything above is one model{size}, {row['base_label']}{long}, judged by {by}. The embedded world of the "
        "other tables shows that the path works; it is no evidence about the paper."
    )


def _losses(block: Block) -> str:
    """The losses of LoRA and ID-LoRA, and where each method stands to LoRA; nothing where the two were not compared."""
    against = _against_lora(block)
    if SUBJECT not in [pair.first for pair in against]:
        return ""
    against_lora = stand([(pair, _name(block, pair.first)) for pair in against], of="LoRA:")
    values = [f"{_loss(block.rows[method])} for {_name(block, method)}" for method in (LORA, SUBJECT)]
    return f"{joined(values)}; {against_lora}"


def _against_lora(block: Block) -> list[Pair]:
    found = (block.pairs.get((method, LORA, COLUMN)) for method in block.rows if method != UNTUNED)
    return [pair for pair in found if pair]


def _trial(real: Real, column: str) -> str:
    """By how much ID-LoRA's loss of one trial is below or above LoRA's; nothing where one is missing or diverged."""
    values = [float(real.rates.get(method, {}).get(column) or math.inf) for method in (SUBJECT, LORA)]
    if not all(map(math.isfinite, values)):
        return ""
    difference = values[0] - values[1]
    return f"ID-LoRA's loss is {LOSS.text(abs(difference))} {'below' if difference < 0 else 'above'} LoRA's"


def _name(block: Block, method: str) -> str:
    return NAMES.get(method) or block.rows[method]["method_label"]


def _loss(row: Row) -> str:
    """A mean loss, and its spread over the seeds where there are several."""
    spread = row.get(f"{COLUMN}_spread")
    return row[COLUMN] + (f" ± {spread}" if spread else "")


def _millions(row: Row) -> str:
    """Trained parameters."""
    return f"{int(row['parameters_trainable']) / 1e6:.2f}M"


def _parameters(metrics: Iterable[Row]) -> int | None:
    untuned = (row["parameters_total"] for row in metrics if row["method"] == UNTUNED)
    return next((int(total) for total in untuned if total), None)
