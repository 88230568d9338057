"""Phrases that compare methods, from the pairs of a block."""

from collections import Counter
from collections.abc import Iterable, Sequence

from reproduction.report.grid import UNTUNED
from reproduction.report.ordering import AT_FLOOR
from reproduction.report.standings import AHEAD, BEHIND, LEVEL, LOSS, VERDICTS, Block, Pair, Row

SUBJECT, LORA = "idlora", "lora"
REFUSAL, HARMLESS = "refusal", "harmless"
"""Columns of safety prompts, and of harmless prompts, for which a lower share of refusals is better."""

NAMES = {
    SUBJECT: "ID-LoRA", "fft": "full fine-tuning",
    "idlora_no_rb": "the same method without it at the same count",
    "idlora_no_rb_same_rank": "the same method without it at the same rank",
}  # fmt: skip
"""Names of methods in the sentences, if they differ from the table's."""


def called(block: Block, method: str) -> str:
    return NAMES.get(method) or block.rows[method]["method_label"]


def to_lora(block: Block, column: str = LOSS) -> list[Pair]:
    """Return every trained method against LoRA in a column, in the order of the table."""
    found = (block.pairs.get((method, LORA, column)) for method in block.rows if method != UNTUNED)
    return [pair for pair in found if pair]


def scored(block: Block) -> list[Pair]:
    """Return every trained method against LoRA in every column that is no loss."""
    trained = (pair for (first, second, _), pair in block.pairs.items() if second == LORA and first != UNTUNED)
    return [pair for pair in trained if not pair.measure.lower_is_better]


def of_idlora(block: Block) -> list[Pair]:
    """Return ID-LoRA against LoRA in every score column that is not at chance or zero."""
    return [pair for pair in scored(block) if pair.first == SUBJECT and not pair.floor]


def losses(block: Block) -> str:
    """List the losses of LoRA and ID-LoRA, and the verdict of each method against LoRA."""
    values = []
    for method in (LORA, SUBJECT):
        row = block.rows[method]
        spread = f" ± {row[f'{LOSS}_spread']}" if row.get(f"{LOSS}_spread") else ""
        values.append(f"{row[LOSS]}{spread} for {called(block, method)}")
    return f"{joined(values)}; {stand([(pair, called(block, pair.first)) for pair in to_lora(block)], of='LoRA:')}"


def stand(named: Sequence[tuple[Pair, str]], *, of: str = "") -> str:
    """List named pairs by verdict: "ahead of A by …; level with B (…)"."""
    groups = {
        verdict: [f"{name} {pair.amount}" for pair, name in named if pair.verdict == verdict] for verdict in VERDICTS
    }
    return "; ".join(" ".join(filter(None, [verdict, of, joined(own)])) for verdict, own in groups.items() if own)


def brief(named: Sequence[tuple[Pair, str]]) -> str:
    """List named pairs by verdict without intervals: "ahead of A by 0.0044 and level with B"."""
    parts = []
    for verdict in VERDICTS:
        own = [name + (f" by {pair.distance}" if verdict != LEVEL else "") for pair, name in named]
        own = [text for text, (pair, _) in zip(own, named, strict=True) if pair.verdict == verdict]
        parts += [f"{verdict} {joined(own)}"] if own else []
    return "; ".join(parts)


def leads_all(pairs: Iterable[Pair]) -> str:
    """Answer whether the first method of the pairs is ahead of all others."""
    verdicts = {pair.verdict for pair in pairs}
    return (
        "No."
        if BEHIND in verdicts
        else "In part."
        if len(verdicts) > 1
        else "Yes."
        if AHEAD in verdicts
        else "Not measurably."
    )


def tally(pairs: Iterable[Pair]) -> str:
    """Count verdicts: "ahead in 2, level in 2 and behind in 20"."""
    counts = Counter(pair.verdict for pair in pairs)
    return joined([f"{verdict.split()[0]} in {counts[verdict]}" for verdict in VERDICTS if counts[verdict]])


def ahead_or_behind(block: Block, pairs: Sequence[Pair]) -> str:
    """List the methods ahead of LoRA or behind it, with the number of columns and the range: "0.0011 to 0.0023"."""
    parts = []
    for verdict in (AHEAD, BEHIND):
        own: dict[str, list[Pair]] = {}
        for pair in pairs:
            if pair.verdict == verdict:
                own.setdefault(pair.first, []).append(pair)
        stands = []
        for method, found in own.items():
            measure, leads = found[0].measure, sorted(abs(pair.lead) for pair in found)
            ends = dict.fromkeys(f"{lead:.{measure.digits}f}" for lead in (leads[0], leads[-1]))
            points = "" if measure.lower_is_better else " points"
            stands.append(f"{called(block, method)} on {len(found)} ({' to '.join(ends)}{points})")
        parts += [f"{verdict} LoRA: {joined(stands)}"] if stands else []
    if not parts:
        return "all are level with LoRA"
    return "; ".join([*parts, *["otherwise level"] * any(pair.verdict == LEVEL for pair in pairs)])


def refusals(block: Block) -> str:
    """List refusals and verdicts: "LoRA 48.5 and 2.0, full fine-tuning 54.5 (ahead) and 2.2"."""
    parts = []
    for method in (LORA, *(pair.first for pair in to_lora(block, REFUSAL))):
        pairs = block.pairs.get((method, LORA, REFUSAL)), block.pairs.get((LORA, method, HARMLESS))  # fewer is better
        marks = [f" ({pair.verdict.split()[0]})" if pair and pair.verdict != LEVEL else "" for pair in pairs]
        values = [block.rows[method][column] for column in (REFUSAL, HARMLESS)]
        parts.append(f"{called(block, method)} {shares(values, marks)}")
    return ", ".join(parts)


def shares(values: Sequence[str], marks: Sequence[str] = ("", "")) -> str:
    """List the share of each kind of prompts with its mark."""
    parts = [
        (f"{float(value):.1f}" if float(value) else "none") + mark for value, mark in zip(values, marks, strict=True)
    ]
    return "none of either" if parts == ["none", "none"] else joined(parts)


def floors(block: Block, headings: dict[str, str]) -> str:
    """List the columns at chance or zero: "MMLU (at chance)"."""
    columns: dict[str, dict[str, None]] = {}
    for pair in scored(block):
        if pair.floor:
            columns.setdefault(AT_FLOOR[pair.floor], {})[headings[pair.column]] = None
    return joined([f"{joined(short(own))} ({floor})" for floor, own in columns.items()])


def millions(row: Row) -> str:
    """Format the number of trained parameters in millions."""
    return f"{int(row['parameters_trainable']) / 1e6:.2f}M"


def joined(parts: Sequence[str]) -> str:
    """Join as "A, B and C"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def short(names: Iterable[str]) -> list[str]:
    """Shorten headings that repeat the first word of the previous one: "HumanEval pass@1", "pass@5"."""
    names = list(names)
    before = ["", *(name.partition(" ")[0] for name in names)]
    return [name.removeprefix(f"{first} ") for name, first in zip(names, before, strict=False)]
