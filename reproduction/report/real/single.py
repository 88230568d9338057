"""What is said of single tasks: Table 1, at the best rates and at the paper's, and refusals beside known answers'."""

from collections.abc import Sequence

from reproduction.report.grid import UNTUNED
from reproduction.report.real.facts import LORA, Real, called
from reproduction.report.real.words import joined
from reproduction.report.standings import AHEAD, BEHIND, BEST_RATES, LEVEL, PAPER_RATE, Block, Pair

REFUSAL, HARMLESS = "refusal", "harmless"
"""The columns of safety prompts, and of harmless ones, where a lower share of refusals is better."""


def single_tasks(real: Real) -> tuple[str, str]:
    """Every method against LoRA, each trained on one task and judged on it: who stands apart, and how far."""
    blocks = {BEST_RATES: real.single, PAPER_RATE: real.single_paper}
    told = [_losses_and_scores(real, block, real.single_rates[base]) for base, block in blocks.items()]
    told.append(_refusals(real))
    if not any(told):
        return "Single tasks", ""
    steps = f" for {real.single_steps} steps" if real.single_steps else ""
    first = f"Trained{steps} on one task each; Saferpaca is a stand-in, and the safety prompts are in HEx-PHI's place."
    rest = "Every column: `results/reference/small/tables/table1.md`."
    return "Single tasks", " ".join(filter(None, [first, *told, rest]))


def _losses_and_scores(real: Real, block: Block, rates: str) -> str:
    columns = [column for column in real.headings if column not in (REFUSAL, HARMLESS)]
    pairs = [pair for column in columns for pair in _to_lora(block, column) if not pair.floor]
    losses = [pair for pair in pairs if pair.measure.lower_is_better]
    scores = [pair for pair in pairs if not pair.measure.lower_is_better]
    groups = (losses, "in held-out loss on {} sources"), (scores, "in {} scores")
    said = [f"{words.format(len({p.column for p in own}))} {_apart(block, own)}" for own, words in groups if own]
    return f"With {rates}{real.note(pairs)}, {', and '.join(said)}." if said else ""


def _to_lora(block: Block, column: str) -> list[Pair]:
    """Every trained method against LoRA in a column."""
    pairs = [block.pairs.get((method, LORA, column)) for method in block.rows if method != UNTUNED]
    return [pair for pair in pairs if pair]


def _apart(block: Block, pairs: Sequence[Pair]) -> str:
    """Who is ahead of LoRA or behind it, on how many columns and by how much."""
    told = []
    for verdict in (AHEAD, BEHIND):
        own: dict[str, list[Pair]] = {}
        for pair in pairs:
            if pair.verdict == verdict:
                own.setdefault(pair.first, []).append(pair)
        stands = [f"{called(block, method)} on {len(found)} ({_leads(found)})" for method, found in own.items()]
        if stands:
            told.append(f"{verdict} LoRA: {joined(stands)}")
    if not told:
        return "all are level with LoRA"
    return "; ".join([*told, *(["otherwise level"] if any(pair.verdict == LEVEL for pair in pairs) else [])])


def _leads(pairs: Sequence[Pair]) -> str:
    """ "0.0011 to 0.0023": how far they are apart."""
    measure, leads = pairs[0].measure, sorted(abs(pair.lead) for pair in pairs)
    ends = dict.fromkeys(f"{lead:.{measure.digits}f}" for lead in (leads[0], leads[-1]))
    return f"{' to '.join(ends)}{'' if measure.lower_is_better else ' points'}"


def _refusals(real: Real) -> str:
    """What each method refuses in both blocks; for comparison the untuned model, and the known answers that refuse the
    two kinds of prompts differently.
    """
    told = []
    for block, where in ((real.single, "at the best rates"), (real.single_paper, "at the paper's")):
        if against := _to_lora(block, REFUSAL):
            methods = (LORA, *(pair.first for pair in against))
            told.append(f"{where} {', '.join(f'{called(block, each)} {_refused(block, each)}' for each in methods)}")
    if not told:
        return ""
    known: dict[str, list[str]] = {}
    for row in real.known:
        known.setdefault(row["answers"], []).append(row["value"])
    told += [f"{answers} {_shares(values)}" for answers, values in known.items() if len(set(values)) > 1]
    if UNTUNED in real.single.rows:
        told.append(f"{called(real.single, UNTUNED)} {_shares(_rates(real.single, UNTUNED))}")
    return f"Refusals in % of safety and of harmless prompts (of these fewer is better): {'; '.join(told)}."


def _refused(block: Block, method: str) -> str:
    """ "54.5 (ahead) and 2.2": the shares of safety and of harmless prompts, and where the method stands to LoRA."""
    pairs = block.pairs.get((method, LORA, REFUSAL)), block.pairs.get((LORA, method, HARMLESS))  # fewer harmless ones
    marks = [f" ({pair.verdict.split()[0]})" if pair and pair.verdict != LEVEL else "" for pair in pairs]
    return _shares(_rates(block, method), marks)


def _rates(block: Block, method: str) -> list[str]:
    return [block.rows[method].get(column, "") for column in (REFUSAL, HARMLESS)]


def _shares(values: Sequence[str], marks: Sequence[str] = ("", "")) -> str:
    """A share of each kind of prompts with its mark; a kind that was not run is left out."""
    told = [f"{float(v):.1f}{mark}" if float(v) else f"none{mark}" for v, mark in zip(values, marks, strict=False) if v]
    return "none of either" if told == ["none", "none"] else joined(told)
