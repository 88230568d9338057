"""Sentences around a table: its content, the meaning of its marks, and the limits of the scale."""

from collections.abc import Sequence

from reproduction.report.documents import literal
from reproduction.report.floor import CHANCE, SIGN, ZERO, floor_of
from reproduction.report.grid import PAPER, SMALL, kind_of
from reproduction.report.intervals import CONFIDENCE, RESAMPLES
from reproduction.report.measures import PERCENT, Measure
from reproduction.report.ordering import AT_FLOOR, NOISE, OPPOSITE, PAPER_TIE, PARAMS, SAME, TIE, VERDICTS, Ordering
from reproduction.report.significance import EXACT_UP_TO, ZERO_METHOD, seeds_sentence
from reproduction.report.tables import Table

SPREAD = (
    "Standard deviations: over the seeds of a method, pooled over the methods, and over the methods' means, the "
    "untuned base left out. Where their ratio is large, few seeds tell the methods apart."
)
ORDERINGS = (
    f"**{SAME}** / **{OPPOSITE}**: ours goes the paper's way / the other way, and the {CONFIDENCE:.0%} interval of the "
    "paired difference leaves zero out (over few seeds it is somewhat too narrow); "
    f"**{NOISE}**: it does not (+ leans the paper's way, - the other); **{TIE}**: equal here; "
    f"{' / '.join(f'**{verdict}**' for verdict in AT_FLOOR.values())}: on that column the interval of a trained method "
    f"of the model holds it or lies below it, and nobody is called ahead; **{PAPER_TIE}**: the paper prints one number "
    "twice. Parameter counts have no noise."
)
ONE_RUN = ": a † says that two checkpoints differ on these items, not that two methods do"


def caption(table: Table) -> str:
    """Return the caption: whose models and tasks these are, how many seeds, and what the scale can and cannot show."""
    grid, seeds = table.grid, table.grid.seeds
    blocks = {base: f", {grid.block(base, table.scale)}" for base in grid.bases}
    labels = list(dict.fromkeys(name.removesuffix(blocks[base]) for base, name in table.filled.base_labels.items()))
    fewer = ", where no fewer are named below" if grid.fewer else ""
    names, several = " and ".join(labels), f" Means over {len(seeds)} seeds{fewer}." if len(seeds) > 1 else ""
    if table.at_paper_scale:
        beside = " Each value stands beside the paper's, with the difference." if grid.paper else ""
        return f"{names}: the paper's models and data.{beside}{several}"
    if kind_of(table.scale) == SMALL:
        theirs = " and ".join(base["label"][PAPER] for base in grid.bases.values() if PAPER in base["label"])
        place = f" in place of {theirs}" if theirs else ""
        length = ", trained for a fraction of its steps" if theirs else ""
        return (
            f"The small scale: {names}{place}, on the paper's tasks{length}. It can show which method is ahead there "
            "within the intervals. It cannot show what the paper's models do: no number here is to be set beside one "
            f"of the paper's.{several}"
        )
    are = "is a small model" if len(labels) == 1 else "are small models"
    return (
        f"The embedded scale {table.scale!r}: {names} {are} of this project, and every task is from its "
        "generated world (tinyworld). It can show that each method trains, saves, loads and is scored end "
        "to end, what share of the parameters each trains, and which method is ahead on these tasks within the "
        "intervals. It cannot show how the methods compare on the paper's models or on the public benchmarks, whose "
        f"data formats the tasks borrow: no number here is to be set beside one of the paper's.{several}"
    )


def notes(table: Table) -> list[str]:
    """Return the notes on marks, test, interval and counting of parameters."""
    grid = table.grid
    intervals = f"{CONFIDENCE:.0%} intervals in brackets:"
    if PERCENT in table.groups:
        intervals = f"Scores are percent with {intervals} Wilson's for 0/1 items, otherwise"
    lines = [
        f"{intervals} a percentile bootstrap over items ({RESAMPLES} resamples, seeded), and over seeds and items "
        f"where there are several seeds. {_items(table)}.",
        *(
            f"{measure.name.capitalize()}: {measure.unit} of the response, its end included, over rows that no run "
            "trained on and over the benchmarks' own solutions; lower is better. A row is an item of the tests. An "
            "interval says how well these rows tell the loss of such rows; how methods differ on the same rows, the "
            "differences below tell. Bits a byte are in metrics.csv."
            for measure in table.groups
            if measure is not PERCENT
        ),
        "Bold: the best printed value among a model's rows, the untuned base included; equal values are all bold.",
        f"†: ahead of {reference_name(table)} with p < {grid.alpha:g} in a Wilcoxon signed-rank test paired by item, "
        f"two-sided, raw, zero differences dropped ({ZERO_METHOD!r}), exact up to {EXACT_UP_TO} differing items. "
        "Holm's correction (scores and held-out losses apart), McNemar's test and effect sizes are in the significance "
        "file.",
        _floor(table),
        "# trained: parameters that are trained; # params (%): trainable / (base + trainable + frozen copies of base "
        "rows), as the paper counts; without the copies in parentheses where that differs.",
        _seeds(table),
        _protocols(table),
        *(column.note for column in table.columns),
        _controls(table),
        *grid.notes,
    ]
    return [" ".join(line.split()) for line in lines if line]


def group_title(measure: Measure) -> str:
    """Return the heading over the columns of a measure."""
    better = "lower" if measure.lower_is_better else "higher"
    return f"{measure.name.capitalize()}: {measure.unit}, {better} is better"


def paper_block(sources: Sequence[str]) -> str:
    return (
        f"From {'; '.join(sources)}. Other models, other tasks: only the order of the methods is compared, "
        "below. † as the paper prints it."
    )


def reference_name(table: Table) -> str:
    """Return the name of the reference of †."""
    grid = table.grid
    labels = {method: grid.label(method, table.scale) for method in grid.methods}
    if isinstance(grid.reference, str):
        instead = [f"{labels[one]} against {labels[other]}" for one, other in grid.reference_instead.items()]
        return labels[grid.reference] + (f" ({', '.join(instead)})" if instead else "")
    return f"its own reference ({', '.join(f'{labels[one]} of {labels[other]}' for one, other in grid.pairs())})"


def _items(table: Table) -> str:
    """List the numbers of items: "n = 200 questions (gsm8k), 100 problems x 10 samples (humaneval)"."""
    sizes = {}
    for cell in table.filled.cells.values():
        protocols = cell.column.protocols_at(table.scale)
        if len(protocols) == 1:  # a mean of several belongs to columns beside the table
            samples = f" x {cell.samples} samples" if cell.samples > 1 else ""
            name = " ".join(filter(None, [cell.column.benchmark, *protocols]))
            sizes[name] = f"{len(cell.items)} {cell.unit}{'' if len(cell.items) == 1 else 's'}{samples} ({name})"
    return "n = " + ", ".join(dict.fromkeys(sizes.values())) if sizes else "No cell has a value yet"


def _floor(table: Table) -> str:
    """Explain the sign behind an interval, and the columns on which no method is ahead; "" if no value has it."""
    bounds = []
    for kind in (CHANCE, ZERO):
        kinds = {each.id: {e.floor for row in table.rows if (e := row.entries[each.id])} for each in table.columns}
        own = [f"{c.id} {100 * c.chance:g} %" if c.chance else c.id for c in table.columns if kind in kinds[c.id]]
        bounds += [f"{kind} ({', '.join(own)})"] if own else []
    if not bounds:
        return ""
    decides = "; the held-out loss decides" if any(measure is not PERCENT for measure in table.groups) else ""
    found = {
        name: [column.id for column in table.columns if floor_of(table.filled, base, column)]
        for base, name in table.filled.base_labels.items()
    }
    here = "; ".join(f"{name} ({', '.join(columns)})" for name, columns in found.items() if columns)
    return (
        f"{SIGN}: the interval holds, or lies below, {' or '.join(bounds)}. On a column where that is so of a trained "
        f"method no method of its model is called ahead, neither by bold nor by †{decides}. "
        f"Such columns here: {here or 'none'}."
    )


def _seeds(table: Table) -> str:
    seeds, alpha = table.grid.seeds, table.grid.alpha
    if len(seeds) == 1:
        return f"One run a cell (seed {seeds[0]}){ONE_RUN}.{_fewer(table)}"
    return (
        f"Means ± standard deviations over {len(seeds)} seeds ({', '.join(map(str, seeds))}; an untuned base is one "
        "run). † is a test on items averaged over the seeds first, since a seed is no new item; "
        f"{seeds_sentence(len(seeds), alpha=alpha)}.{_fewer(table)}"
    )


def _fewer(table: Table) -> str:
    """List each base, method or benchmark that has fewer seeds."""
    grid, sentences = table.grid, ""
    labels = {method: grid.label(method, table.scale) for method in grid.methods} | table.filled.base_labels
    for column in table.columns:
        own = [each.heading_at(table.scale) for each in table.columns if each.benchmark == column.benchmark]
        labels.setdefault(column.benchmark, ", ".join(own))
    for name, own in grid.fewer.items():
        has = f"seed{'s' * (len(own) > 1)} {', '.join(map(str, own))} alone" if own else "not run"
        sentences += f" {', '.join(labels[part] for part in name.split('/'))}: {has}{ONE_RUN if len(own) == 1 else ''}."
    return sentences


def _protocols(table: Table) -> str:
    """List the protocols of each benchmark, by their names in configs/eval."""
    names = sorted({f"{cell.column.benchmark} {cell.protocol}" for cell in table.filled.cells.values()})
    return f"Protocols (configs/eval): {', '.join(names)}." if names else ""


def _controls(table: Table) -> str:
    """List the scores of known answers to a column's items, for every column that has them."""
    found = {cell.column.id: cell for cell in table.filled.cells.values() if cell.controls}
    parts = [
        f"{cell.column.heading_at(table.scale)}, of the {len(cell.items)} {cell.unit}s: "
        + ", ".join(f"{name} {cell.measure.text(value)}" for name, value in cell.controls.items())
        for cell in found.values()
    ]
    return f"Controls, known answers scored like the models': {'; '.join(parts)}." if parts else ""


def ordering_title(table: Table) -> str:
    subject = table.grid.subject
    who = "each pair" if subject is None else f"{table.grid.label(subject, table.scale)} against each method"
    return f"## Orderings: {who}, the paper's and ours"


def ordering_counts(table: Table) -> str:
    """Count the pairs of methods ordered like the paper's, by block; "" if the paper has no such table."""
    grid = table.grid
    if not any(grid.block(base, table.scale) for base in grid.bases):
        return _counted(table.orderings)
    blocks = {base: [each for each in table.orderings if each.base == base] for base in grid.bases}
    return "\n\n".join(f"{table.filled.base_labels[base]}: {_counted(own)}" for base, own in blocks.items() if own)


def _counted(orderings: list[Ordering]) -> str:
    if not orderings:
        return ""
    counts = {verdict: sum(each.verdict == verdict for each in orderings) for verdict in VERDICTS}
    parts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    leaning = sum(each.leaning > 0 for each in orderings if each.verdict == NOISE)
    noise = f"; of those within noise, {leaning} lean the paper's way" if counts[NOISE] else ""
    alone = " in # params alone" * all(each.column == PARAMS for each in orderings)
    return f"All {len(orderings)} pairs of methods{alone}: {parts}{noise}."


def missing_lines(table: Table) -> list[str]:
    """Return one line per missing cell: the reason, and the command that fills it."""
    return [
        f"{literal(each.experiment)}, {table.grid.label(each.method, table.scale)}, seed {each.seed} "
        f"({literal(each.reason)}): `{each.command}`"
        for each in table.missing
    ]
