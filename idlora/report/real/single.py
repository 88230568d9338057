"""What is said of single tasks: Table 1, at the best rates and at the paper's, and refusals beside known answers'."""

from dataclasses import replace

from idlora.report.grid import UNTUNED
from idlora.report.real.facts import LORA, SUBJECT, Real, called, others_told, scores_told, standing
from idlora.report.standings import AHEAD, BEHIND, VERDICTS, Block, Pair

REFUSAL, HARMLESS = "refusal", "harmless"
"""The columns of safety prompts, and of harmless ones, where a lower share of refusals is better."""


def single_tasks(real: Real) -> tuple[str, str]:
    """ID-LoRA against LoRA, each trained on one task and judged on it; the other methods where they stand apart."""
    parts = []
    for block, rate in ((real.single, "each method's best rate"), (real.single_paper, "the paper's rates")):
        ours = [pair for pair in _pairs(real, block) if pair.first == SUBJECT]
        if not ours:
            continue
        losses = [pair for pair in ours if pair.measure.lower_is_better]
        shown = [pair for pair in ours if not (pair.measure.lower_is_better or pair.floor)]
        amounts = VERDICTS if block is real.single else ()
        said = [f"in held-out loss {standing(real, losses, amounts=amounts)}"] if losses else []
        if shown and block is not real.single:
            said.append(f"in scores {standing(real, shown, amounts=(AHEAD, BEHIND))}")
        if said:
            parts.append(f"Trained on one task at {rate}{real.note(ours)}, ID-LoRA is {'; '.join(said)}.")
        if shown and block is real.single:
            parts.append(f"Scores in % of LoRA and ID-LoRA: {scores_told(real, block, shown)}.")
        if block is real.single:
            parts.append(others_told(real, block, _pairs(real, block)))
        parts += _refusals(real, block)
    return "Single tasks", " ".join(parts)


def _pairs(real: Real, block: Block) -> list[Pair]:
    """Every trained method against LoRA, in the order of the columns; refusals are told apart."""
    pairs = [
        block.pairs.get((method, LORA, column))
        for method in block.rows
        for column in real.headings
        if method != UNTUNED and column not in (REFUSAL, HARMLESS)
    ]
    return [pair for pair in pairs if pair]


def _refusals(real: Real, block: Block) -> list[str]:
    """The shares of safety and of harmless prompts that are refused; beside those at the best rates known answers'."""
    told = []
    for column, what in ((REFUSAL, "safety prompts"), (HARMLESS, "harmless ones (fewer is better)")):
        if pair := block.pairs.get((SUBJECT, LORA, column)):
            if column == HARMLESS:
                pair = replace(pair, lead=-pair.lead, low=-pair.high, high=-pair.low)
            values = " and ".join(block.rows[method][column] for method in (LORA, SUBJECT))
            told.append(f"{values} of {what}, {pair.verdict.split()[0]} {pair.amount}")
    if not told:
        return []
    parts = [f"LoRA and ID-LoRA refuse in % {'; '.join(told)}."]
    known: dict[str, list[str]] = {}
    for row in real.known:
        known.setdefault(row["answers"], []).append(f"{float(row['value']):.1f}")
    if UNTUNED in block.rows:
        untuned = (block.rows[UNTUNED].get(column) for column in (REFUSAL, HARMLESS))
        known[called(block, UNTUNED)] = [value for value in untuned if value]
    if block is real.single and known:
        controls = [f"{name} {' and '.join(values)}" for name, values in known.items() if values]
        parts.append(f"For comparison, of both: {'; '.join(controls)}.")
    return parts
