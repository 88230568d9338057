"""The sentences around a table: what it shows, what its marks mean, what the scale cannot show."""

from reproduction.report.floor import CHANCE, SIGN, ZERO, floor_of
from reproduction.report.grid import PAPER, SMALL, Column, kind_of
from reproduction.report.intervals import CONFIDENCE, RESAMPLES
from reproduction.report.measures import PERCENT, Measure
from reproduction.report.ordering import AT_FLOOR, NOISE, OPPOSITE, PAPER_TIE, PARAMS, SAME, TIE, VERDICTS, Ordering
from reproduction.report.significance import EXACT_UP_TO, ZERO_METHOD, seeds_sentence
from reproduction.report.tables import Entry, Table

SPREAD = (
    "Standard deviations: over the seeds of a method, pooled over the methods, and over the methods' means, the "
    "untuned base left out. Where their ratio is large, few seeds tell the methods apart."
)


ONE_RUN = ": a † says that two checkpoints differ on these items, not that two methods do"


def caption(table: Table) -> str:
    """One paragraph: whose models and tasks these are, how many seeds, and what the scale can and cannot show."""
    blocks = {base: f", {table.grid.block(base, table.scale)}" for base in table.grid.bases}
    labels = list(dict.fromkeys(name.removesuffix(blocks[base]) for base, name in table.filled.base_labels.items()))
    seeds = table.grid.seeds
    fewer = ", where no fewer are named below" if table.grid.fewer else ""
    names, several = " and ".join(labels), f" Means over {len(seeds)} seeds{fewer}." if len(seeds) > 1 else ""
    if table.at_paper_scale:
        beside = " Each value stands beside the paper's, with the difference." if table.grid.paper else ""
        return f"{names}: the paper's models and data.{beside}{several}"
    if kind_of(table.scale) == SMALL:
        theirs = " and ".join(base["label"][PAPER] for base in table.grid.bases.values() if PAPER in base["label"])
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
    """What the marks mean, which test, which interval, which counting of parameters."""
    grid = table.grid
    reference = reference_name(table)
    lines = [
        f"{_scores(table)} percentile bootstrap over items ({RESAMPLES} resamples, seeded), and over seeds and items "
        f"where there are several seeds. {items(table)}.",
        *(_held_out(measure) for measure in table.groups if measure is not PERCENT),
        "Bold: the best printed value among a model's rows, the untuned base included; equal values are all bold.",
        f"†: ahead of {reference} with p < {grid.alpha:g} in a Wilcoxon signed-rank test paired by item, two-sided, "
        f"raw, zero differences dropped ({ZERO_METHOD!r}), exact up to {EXACT_UP_TO} differing items. Holm's "
        "correction (scores and held-out losses apart), McNemar's test and effect sizes are in the significance file.",
        _floor(table),
        "# trained: parameters that are trained; # params (%): trainable / (base + trainable + frozen copies of base "
        "rows), as the paper counts; without the copies in parentheses where that differs.",
        _seeds(table),
        _protocols(table),
        *(" ".join(column.note.split()) for column in table.columns if column.note),
        _controls(table),
        *(" ".join(note.split()) for note in grid.notes),
    ]
    return [line for line in lines if line]


def group_title(measure: Measure) -> str:
    """The heading over the columns of a measure."""
    better = "lower" if measure.lower_is_better else "higher"
    return f"{measure.name.capitalize()}: {measure.unit}, {better} is better"


def _scores(table: Table) -> str:
    if PERCENT in table.groups:
        return f"Scores are percent with {CONFIDENCE:.0%} intervals in brackets: Wilson's for 0/1 items, otherwise a"
    return f"{CONFIDENCE:.0%} intervals in brackets: a"


def _held_out(measure: Measure) -> str:
    return (
        f"{measure.name.capitalize()}: {measure.unit} of the response, its end included, over rows that no run trained "
        "on and over the benchmarks' own solutions; lower is better. A row is an item of the tests. An interval says "
        "how well these rows tell the loss of such rows; how methods differ on the same rows, the differences below "
        "tell. Bits a byte are in metrics.csv."
    )


def _floor(table: Table) -> str:
    """What the sign behind an interval means, and where it leaves nobody ahead; empty where no value has it."""
    bounds = {}
    for kind in (CHANCE, ZERO):
        if own := [each for each in table.columns if any(_at(row.entries[each.id], kind) for row in table.rows)]:
            bounds[kind] = f"{kind} ({', '.join(map(_bound, own))})"
    if not bounds:
        return ""
    decides = "; the held-out loss decides" if any(measure is not PERCENT for measure in table.groups) else ""
    found = {
        name: [column.id for column in table.columns if floor_of(table.filled, base, column)]
        for base, name in table.filled.base_labels.items()
    }
    here = "; ".join(f"{name} ({', '.join(columns)})" for name, columns in found.items() if columns)
    return (
        f"{SIGN}: the interval holds, or lies below, {' or '.join(bounds.values())}. On a column where that is so of a "
        f"trained method no method of its model is called ahead, neither by bold nor by †{decides}. "
        f"Such columns here: {here or 'none'}."
    )


def _at(entry: Entry | None, kind: str) -> bool:
    return entry is not None and entry.floor == kind


def _bound(column: Column) -> str:
    return f"{column.id} {100 * column.chance:g} %" if column.chance else column.id


def reference_name(table: Table) -> str:
    """What † is against, in words."""
    grid = table.grid
    if isinstance(grid.reference, str):
        instead = [
            f"{grid.label(one, table.scale)} against {grid.label(other, table.scale)}"
            for one, other in grid.reference_instead.items()
        ]
        return grid.label(grid.reference, table.scale) + (f" ({', '.join(instead)})" if instead else "")
    pairs = (f"{grid.label(one, table.scale)} of {grid.label(other, table.scale)}" for one, other in grid.pairs())
    return f"its own reference ({', '.join(pairs)})"


def _fewer(table: Table) -> str:
    """What has not all seeds, as a sentence for each of them."""
    grid, told = table.grid, ""
    labels = {method: grid.label(method, table.scale) for method in grid.methods} | table.filled.base_labels
    for name, own in grid.fewer.items():
        named = ", ".join(
            labels.get(part) or ", ".join(table.heading(column) for column in table.columns if column.benchmark == part)
            for part in name.split("/")
        )
        has = f"seed{'s' * (len(own) > 1)} {', '.join(map(str, own))} alone" if own else "not run"
        told += f" {named}: {has}{ONE_RUN if len(own) == 1 else ''}."
    return told


def _seeds(table: Table) -> str:
    seeds, alpha = table.grid.seeds, table.grid.alpha
    if len(seeds) == 1:
        return f"One run a cell (seed {seeds[0]}){ONE_RUN}.{_fewer(table)}"
    return (
        f"Means ± standard deviations over {len(seeds)} seeds ({', '.join(map(str, seeds))}; an untuned base is one "
        "run). † is a test on items averaged over the seeds first, since a seed is no new item; "
        f"{seeds_sentence(len(seeds), alpha=alpha)}.{_fewer(table)}"
    )


def _protocols(table: Table) -> str:
    """How each benchmark was asked, by the names in configs/eval."""
    asked = {(cell.column.benchmark, cell.protocol) for cell in table.filled.cells.values()}
    told = ", ".join(f"{benchmark} {protocol}" for benchmark, protocol in sorted(asked))
    return f"Protocols (configs/eval): {told}." if told else ""


def _controls(table: Table) -> str:
    """What known answers to a column's items score, for every column that has such; empty where none has."""
    found = {cell.column.id: cell for cell in table.filled.cells.values() if cell.controls}
    told = [
        f"{table.heading(cell.column)}, of the {len(cell.items)} {cell.unit}s: "
        + ", ".join(f"{name} {cell.measure.text(value)}" for name, value in cell.controls.items())
        for cell in found.values()
    ]
    return f"Controls, known answers scored like the models': {'; '.join(told)}." if told else ""


def items(table: Table) -> str:
    """ "n = 200 questions (gsm8k), 100 problems x 10 samples (humaneval)", from the cells themselves."""
    sizes = {}
    for cell in table.filled.cells.values():
        samples = f" x {cell.samples} samples" if cell.samples > 1 else ""
        plural = "" if len(cell.items) == 1 else "s"
        protocols = cell.column.protocols_at(table.scale)
        name = " ".join(filter(None, [cell.column.benchmark, *protocols])) if len(protocols) == 1 else ""
        sizes[name] = f"{len(cell.items)} {cell.unit}{plural}{samples} ({name})"
    sizes.pop("", None)  # a mean of columns that stand beside it
    return "n = " + ", ".join(dict.fromkeys(sizes.values())) if sizes else "No cell has a value yet"


def ordering_counts(table: Table) -> str:
    """How many pairs of methods stand here as in the paper, in a sentence for each block; empty where the paper has
    none.
    """
    grid, labels = table.grid, table.filled.base_labels
    if not any(grid.block(base, table.scale) for base in grid.bases):
        return _counted(table.orderings)
    blocks = {base: [each for each in table.orderings if each.base == base] for base in grid.bases}
    return "\n\n".join(f"{labels[base]}: {_counted(own)}" for base, own in blocks.items() if own)


def _counted(orderings: list[Ordering]) -> str:
    if not orderings:
        return ""
    counts = {verdict: sum(each.verdict == verdict for each in orderings) for verdict in VERDICTS}
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    leaning = sum(each.leaning > 0 for each in orderings if each.verdict == NOISE)
    noise = f"; of those within noise, {leaning} lean the paper's way" if counts[NOISE] else ""
    alone = " in # params alone" * all(each.column == PARAMS for each in orderings)
    return f"All {len(orderings)} pairs of methods{alone}: {told}{noise}."


def ordering_legend() -> str:
    """What the verdicts mean."""
    return (
        f"**{SAME}** / **{OPPOSITE}**: ours goes the paper's way / the other way, and the {CONFIDENCE:.0%} interval of "
        "the paired difference leaves zero out (over few seeds it is somewhat too narrow); "
        f"**{NOISE}**: it does not (+ leans the paper's way, - the other); **{TIE}**: equal here; "
        f"{' / '.join(f'**{verdict}**' for verdict in AT_FLOOR.values())}: on that column the interval of a trained "
        f"method of the model holds it or lies below it, and nobody is called ahead; **{PAPER_TIE}**: the paper prints "
        "one number twice. Parameter counts have no noise."
    )


def missing_lines(table: Table) -> list[str]:
    """One line per missing cell: why, and the command that fills it."""
    return [
        f"{each.experiment}, {table.grid.label(each.method, table.scale)}, seed {each.seed} "
        f"({each.reason}): {_code(each.command)}"
        for each in table.missing
    ]


def _code(words: str) -> str:
    return f"`` {words} ``" if "`" in words else f"`{words}`"
