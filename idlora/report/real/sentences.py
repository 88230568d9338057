"""What is said of a real model. Every number is a table's and every "ahead", "behind" and "level" that of an interval
over seeds and items (over items where there is one seed), so each sentence can come out either way.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from idlora.records import write_text
from idlora.report.grid import SMALL, UNTUNED, load_grid
from idlora.report.measures import measure_of
from idlora.report.ordering import AT_FLOOR
from idlora.report.rates import spelled
from idlora.report.real.blocks import (
    BEST_RATES,
    LEVEL,
    PAPER_RATE,
    VERDICTS,
    Block,
    Pair,
    Row,
    read_block,
    read_rows,
)
from idlora.report.reference import reference_folder
from idlora.report.worth import NAMES as OF_A_RUN
from idlora.report.worth import STEP, Association, associated, told

COLUMN = "loss"
"""The mean held-out loss over the sources."""

SUBJECT, LORA, EQUAL = "idlora", "lora", "lora_equal"
FROZEN = (
    "idlora_random", "idlora_serial", "idlora_largest_norm", "idlora_smallest_norm", "idlora_pivoted_qr",
    "idlora_gaussian", "idlora_orthonormal", "idlora_equal_norm",
)  # fmt: skip
"""The controls that freeze something else: other rows, and no rows."""

NAMES = {
    "idlora": "ID-LoRA", "fft": "full fine-tuning",
    "idlora_no_rb": "the same method without it at the same count",
    "idlora_no_rb_same_rank": "the same method without it at the same rank",
}  # fmt: skip
"""What the sentences call a method whose row of the table says something else."""

LOSS = measure_of("nats_per_token")


@dataclass(frozen=True, kw_only=True)
class Real:
    """What the sentences are made of: Table 2 at the ``best`` rates and at the ``paper``'s one, its methods trained
    ``longer``, the ``controls``; ``rates`` by method; ``worth``, a row a run; ``headings`` of Table 2's columns;
    ``parameters`` of the model.
    """

    best: Block
    paper: Block
    longer: Block
    controls: Block
    rates: Mapping[str, Row]
    worth: Sequence[Row]
    headings: Mapping[str, str]
    parameters: int | None

    @property
    def at_best(self) -> Block:
        """Table 2, or the controls where it was not run."""
        return self.best if (SUBJECT, LORA, COLUMN) in self.best.pairs else self.controls

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
    real = Real(
        best=read_block(folder, "table2", BEST_RATES),
        paper=read_block(folder, "table2", PAPER_RATE),
        longer=read_block(folder, "table_longer"),
        controls=read_block(folder, "table_controls"),
        rates={row["method"]: row for row in read_rows(folder / "tables" / "rates.csv")},
        worth=read_rows(folder / "tables" / "worth.csv"),
        headings={
            column.id: column.heading_at(SMALL) for column in load_grid(experiments / "table2").columns_at(SMALL)
        },
        parameters=_parameters(read_rows(folder / "metrics.csv")),
    )
    if SUBJECT not in real.at_best.rows:
        return []
    say = (_who_is_ahead, _learning_rate, _longer, _benchmarks, _worth, _frozen, _limits)
    return [f"**{title}.** {text}" for title, text in (each(real) for each in say) if text]


def write_real(results: Path, experiments: Path) -> Path | None:
    """Write the sentences into the reference's README.md; returns its path, None where there is nothing to say."""
    said = real_sentences(results, experiments)
    if not said:
        return None
    path = reference_folder(results, SMALL) / "README.md"
    pointer = "`report.html` has every table, figure and test; `tables/`, `significance/` and `records/` the numbers."
    write_text(path, "\n\n".join(["# ID-LoRA on a real pre-trained model", listed(said), pointer]) + "\n")
    return path


def listed(sentences: Iterable[str]) -> str:
    """The sentences as they stand in a Markdown file."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _who_is_ahead(real: Real) -> tuple[str, str]:
    parts, rows = [], real.at_best.rows
    if stand := _losses(real.at_best):
        parts.append(f"At each method's own best learning rate the held-out loss in nats a token is {stand}.")
        parts.append(f"LoRA trains {_millions(rows[LORA])} parameters and ID-LoRA {_millions(rows[SUBJECT])}.")
    if pair := real.controls.pairs.get((EQUAL, SUBJECT, COLUMN)):
        count = f"LoRA at an equal count ({_millions(real.controls.rows[EQUAL])})"
        parts.append(f"{count} is {pair.verdict} ID-LoRA {pair.amount}.")
    return "Who is ahead", " ".join(parts)


def _learning_rate(real: Real) -> tuple[str, str]:
    """At the paper's rate for all; where Table 2 has no such block, by the trials that chose the rates."""
    parts = []
    best = [real.rates.get(method, {}).get("best_rate") for method in (SUBJECT, LORA)]
    if all(best):
        parts.append(f"The best rates are {' for ID-LoRA and '.join(spelled(float(rate)) for rate in best)} for LoRA.")
    if stand := _losses(real.paper):
        ahead = {block.pairs[SUBJECT, LORA, COLUMN].verdict for block in (real.paper, real.at_best)}
        decides = "does not decide" if len(ahead) == 1 else "has a say in" if LEVEL in ahead else "decides"
        parts.append(f"At {real.paper_rate} for all the loss is {stand}.")
        parts.append(f"The learning rate {decides} which of ID-LoRA and LoRA is ahead.")
    else:
        trials = [(_trial(real, "loss_paper"), f"at {real.paper_rate}"), (_trial(real, "loss_best"), "at the best")]
        if said := [f"{where} {difference}" for difference, where in trials if difference]:
            parts.append(f"By the validation loss of one run a rate, {_and(said)}.")
    rows = [real.rates.get(method, {}) for method in (SUBJECT, LORA)]
    if all(row.get("largest_eigenvalue") and row.get("a_row_norm") for row in rows):
        sharp, norms = ([f"{float(row[name]):.3g}" for row in rows] for name in ("largest_eigenvalue", "a_row_norm"))
        parts.append(
            f"Where training starts, the largest Hessian eigenvalue over what is trained is {sharp[0]} for ID-LoRA and "
            f"{sharp[1]} for LoRA, whose rows of A are {norms[1]} long on average where the frozen ones are {norms[0]}."
        )
    return "The learning rate", " ".join(parts)


def _longer(real: Real) -> tuple[str, str]:
    """After the paper's two epochs: whose stand to LoRA is another than after the few steps of Table 2."""
    if not (stand := _losses(real.longer)):
        return "Longer training", ""
    seeds = real.longer.rows[LORA]["seeds"]
    once = " (one run each, intervals over items alone)" if seeds == "1" else f" ({seeds} seeds)"
    parts = [f"After the paper's two epochs{once} the loss is {stand}."]
    steps = real.rates.get(SUBJECT, {}).get("steps")
    short = f"{steps} steps" if steps else "Table 2"
    both = [
        (before, pair)
        for pair in _against_lora(real.longer)
        if (before := real.best.pairs.get((pair.first, LORA, COLUMN)))
    ]
    changed = [
        f"{_name(real.longer, pair.first)} (then {before.verdict} LoRA, now {pair.verdict} it)"
        for before, pair in both
        if before.verdict != pair.verdict
    ]
    if both:
        stands = f"does not stand for {_and(changed)}" if changed else "stands"
        parts.append(f"The order of {short} against LoRA {stands}.")
    if difference := _trial(real, "longer_paper_heldout"):
        after = real.rates[SUBJECT]["longer_steps"]
        parts.append(f"At {real.paper_rate}, one run each, {difference} after {after} steps.")
    return "Longer training", " ".join(parts)


def _benchmarks(real: Real) -> tuple[str, str]:
    """Who is ahead in the columns that are no losses; what is at chance or zero is named, and nothing said of it."""
    against = _scored(real.best)
    ours = [pair for pair in against if pair.first == SUBJECT]
    if not ours:
        return "Benchmarks", ""
    rows = [real.best.rows[method] for method in (LORA, SUBJECT)]
    values = [f"{' and '.join(row[pair.column] for row in rows)} % on {real.headings[pair.column]}" for pair in ours]
    parts = [f"At the best rates LoRA and ID-LoRA score {_and(values)}."]
    floors: dict[str, list[str]] = {}
    for pair in ours:
        if pair.floor:
            floors.setdefault(AT_FLOOR[pair.floor], []).append(real.headings[pair.column])
    if floors:
        where = _and([f"{_and(columns)} ({floor})" for floor, columns in floors.items()])
        parts.append(f"Nobody can be called ahead on {where}: the interval of a trained method reaches down there.")
    if stand := _on_columns(real, ours):
        others = [pair for pair in against if pair.first != SUBJECT and pair.verdict != LEVEL]
        named = [(pair, f"{_name(real.best, pair.first)} on {real.headings[pair.column]}") for pair in others]
        parts.append(f"ID-LoRA is {stand}; of the others, {_stand(named, of='LoRA:') or 'all are level with LoRA'}.")
    if at_paper := [pair for pair in _scored(real.paper) if pair.first == SUBJECT]:
        stand = _on_columns(real, at_paper)
        parts.append(f"At {real.paper_rate} {f'it is {stand}' if stand else 'nobody can be called ahead on any'}.")
    return "Benchmarks", " ".join(parts)


def _scored(block: Block) -> list[Pair]:
    """Every trained method against LoRA in every column that is no loss."""
    trained = (pair for (first, second, _), pair in block.pairs.items() if second == LORA and first != UNTUNED)
    return [pair for pair in trained if not pair.measure.lower_is_better]


def _on_columns(real: Real, pairs: Iterable[Pair]) -> str:
    return _stand([(pair, f"on {real.headings[pair.column]}") for pair in pairs if not pair.floor], of="LoRA")


def _worth(real: Real) -> tuple[str, str]:
    """How losses and scores go together over all trained runs, by the interval of the rank correlation."""
    runs = [row for row in real.worth if row["method"] != UNTUNED]
    columns = [name for name in (runs[0] if runs else ()) if name not in OF_A_RUN and "_ci_" not in name]
    groups: dict[str, list[str]] = {"higher": [], "lower": [], "": []}
    for column in columns:
        own = [row for row in runs if row[column]]
        losses, scores = (tuple(float(row[name]) for row in own) for name in (COLUMN, column))
        found = associated(losses, scores, tuple(row["method"] for row in own))
        slope = f", {told(found.slope, found.slope_interval)} points per {STEP:g} nats more"
        rho = f"rank correlation {told(found.rho, found.rho_interval)} over {len(own)} runs"
        way = _way(found)
        groups[way].append(f"{real.headings[column]} ({rho}{slope if way else ''})")
    parts = [
        f"a lower held-out loss goes with a {way} score on {_and(groups[way])}"
        for way in ("higher", "lower")
        if groups[way]
    ]
    if groups[""]:
        parts.append(f"whether it goes with either cannot be told on {_and(groups[''])}")
    return "What a loss difference is worth", f"Over all trained runs {'; '.join(parts)}." if parts else ""


def _way(found: Association) -> str:
    """The score that goes with a lower loss: "higher", "lower", or nothing where the interval holds zero."""
    low, high = found.rho_interval or (0, 0)
    return "higher" if high < 0 else "lower" if low > 0 else ""


def _frozen(real: Real) -> tuple[str, str]:
    def stand(methods: Iterable[str]) -> str:
        pairs = [pair for method in methods if (pair := real.controls.pairs.get((SUBJECT, method, COLUMN)))]
        return _stand([(pair, _name(real.controls, pair.second)) for pair in pairs])

    parts = []
    if rows := stand(FROZEN):
        parts.append(f"As frozen bases, the rows that PMRC picks are {rows}.")
    if boosting := stand(("idlora_no_rb", "idlora_no_rb_same_rank")):
        parts.append(f"With Rank Boosting ID-LoRA is {boosting}.")
    return "Which rows, and whether rows", " ".join(parts)


def _limits(real: Real) -> tuple[str, str]:
    row, steps = real.at_best.rows[SUBJECT], real.rates.get(SUBJECT, {}).get("steps")
    size = f" of {real.parameters / 1e6:.0f}M parameters" if real.parameters else ""
    seeds = "one seed" if row["seeds"] == "1" else f"{row['seeds']} seeds"
    scored = dict.fromkeys(real.headings[pair.column] for pair in _scored(real.best))
    long = f"{steps} steps and " if steps else ""
    by = f"by held-out loss and on {_and(list(scored))}" if scored else "by held-out loss alone"
    return "What it is not", (
        f"All this is one model{size}, {row['base_label']}, {long}{seeds} where nothing else is said, {by}; the "
        "embedded world of the other tables proves that the path works and is no evidence about the paper."
    )


def _losses(block: Block) -> str:
    """The losses of LoRA and ID-LoRA, and where each method stands to LoRA; nothing where the two were not compared."""
    against = _against_lora(block)
    if SUBJECT not in [pair.first for pair in against]:
        return ""
    stand = _stand([(pair, _name(block, pair.first)) for pair in against], of="LoRA:")
    values = [f"{_loss(block.rows[method])} for {_name(block, method)}" for method in (LORA, SUBJECT)]
    return f"{_and(values)}; {stand}"


def _against_lora(block: Block) -> list[Pair]:
    found = (block.pairs.get((method, LORA, COLUMN)) for method in block.rows if method != UNTUNED)
    return [pair for pair in found if pair]


def _stand(told: Sequence[tuple[Pair, str]], *, of: str = "") -> str:
    """ "ahead of A by …, and level with B (…)": pairs by verdict, each with how it is called."""
    groups = {
        verdict: [f"{name} {pair.amount}" for pair, name in told if pair.verdict == verdict] for verdict in VERDICTS
    }
    return "; ".join(" ".join(filter(None, [verdict, of, _and(own)])) for verdict, own in groups.items() if own)


def _trial(real: Real, column: str) -> str:
    """By how much ID-LoRA's loss of one trial is below or above LoRA's; nothing where one is missing or diverged."""
    values = [float(real.rates.get(method, {}).get(column) or math.inf) for method in (SUBJECT, LORA)]
    if not all(map(math.isfinite, values)):
        return ""
    difference = values[0] - values[1]
    return f"ID-LoRA's is {LOSS.text(abs(difference))} {'below' if difference < 0 else 'above'} LoRA's"


def _name(block: Block, method: str) -> str:
    return NAMES.get(method) or block.rows[method]["method_label"]


def _loss(row: Row) -> str:
    """A mean loss, and its spread over the seeds where there are several."""
    spread = row.get(f"{COLUMN}_spread")
    return row[COLUMN] + (f" ± {spread}" if spread else "")


def _millions(row: Row) -> str:
    """Trained parameters."""
    return f"{int(row['parameters_trainable']) / 1e6:.2f}M"


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _parameters(metrics: Iterable[Row]) -> int | None:
    untuned = (row["parameters_total"] for row in metrics if row["method"] == UNTUNED)
    return next((int(total) for total in untuned if total), None)
