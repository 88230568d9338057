"""What is said of several tasks at once: Table 2, at the best rates and at the paper's, and trained longer."""

from collections.abc import Iterable

from reproduction.report.grid import UNTUNED
from reproduction.report.intervals import CONFIDENCE
from reproduction.report.ordering import AT_FLOOR
from reproduction.report.rates import spelled
from reproduction.report.real.facts import (
    LORA,
    SUBJECT,
    Real,
    called,
    losses_told,
    millions,
    others_told,
    scored,
    scores_told,
    standing,
    to_lora,
    trial_told,
)
from reproduction.report.real.words import joined, short
from reproduction.report.standings import AHEAD, BEHIND, LEVEL, LOSS, VERDICTS, Pair, runs, runs_and_intervals

EQUAL = "lora_equal"


def who_is_ahead(real: Real) -> tuple[str, str]:
    rows = real.at_best.rows
    parts = [
        f'Here and below "ahead" and "behind" need a {100 * CONFIDENCE:.0f} % interval over seeds and items without '
        "zero (the tables' † goes by items alone) and all seeds to agree; with few seeds the intervals are too narrow, "
        "and nothing is corrected for the number of pairs. Signed numbers in parentheses are leads, positive for a "
        "lower loss or a higher score."
    ]
    if told := losses_told(real.at_best):
        seeds = runs_and_intervals(to_lora(real.at_best))
        parts.append(f"At each method's best learning rate ({seeds}) the held-out loss in nats a token is {told}.")
        parts.append(f"LoRA trains {millions(rows[LORA])} parameters, ID-LoRA {millions(rows[SUBJECT])}.")
    if pair := real.controls.pairs.get((EQUAL, SUBJECT, LOSS)):
        count = f"LoRA at an equal count ({millions(real.controls.rows[EQUAL])})"
        parts.append(f"{count} is {pair.verdict} ID-LoRA {pair.amount}{real.note([pair])}.")
    return "Who is ahead", " ".join(parts)


def learning_rate(real: Real) -> tuple[str, str]:
    """At the paper's rate for all; where Table 2 has no such block, by the trials that chose the rates."""
    parts = []
    best = [real.rates.get(method, {}).get("best_rate") for method in (SUBJECT, LORA)]
    if all(best):
        parts.append(f"The best rates are {' for ID-LoRA and '.join(spelled(float(rate)) for rate in best)} for LoRA.")
    if told := losses_told(real.paper):
        against = to_lora(real.paper)
        ahead = {block.pairs[SUBJECT, LORA, LOSS].verdict for block in (real.paper, real.at_best)}
        decides = (
            "does not decide which" if len(ahead) == 1 else "decides whether one" if LEVEL in ahead else "decides which"
        )
        few = f" ({runs(against)} at the paper's rate)" if real.note(against) else ""
        parts.append(f"At {real.paper_rate} for all{real.note(against)} the loss is {told}.")
        parts.append(f"The learning rate {decides} of ID-LoRA and LoRA is ahead{few}.")
    else:
        trials = {f"at {real.paper_rate}": trial_told(real, "loss_paper"), "at the best": trial_told(real, "loss_best")}
        if said := [f"{where} {difference}" for where, difference in trials.items() if difference]:
            parts.append(f"By the validation loss of one run a rate, {joined(said)}.")
    rows = [real.rates.get(method, {}) for method in (SUBJECT, LORA)]
    if all(row.get("largest_eigenvalue") and row.get("a_row_norm") for row in rows):
        sharp, norms = ([f"{float(row[name]):.3g}" for row in rows] for name in ("largest_eigenvalue", "a_row_norm"))
        parts.append(
            f"Where training starts, the largest Hessian eigenvalue over what is trained is {sharp[0]} for ID-LoRA and "
            f"{sharp[1]} for LoRA, whose rows of A are {norms[1]} long on average where the frozen ones are {norms[0]}."
        )
    return "The learning rate", " ".join(parts)


def longer(real: Real) -> tuple[str, str]:
    """After the paper's two epochs: who was trained so long, and where ID-LoRA stands, by source and by benchmark."""
    if not (told := losses_told(real.longer)):
        return "Longer training", ""
    against = to_lora(real.longer)
    trained = [LORA, *(pair.first for pair in against)]
    left_out = (real.best.rows.keys() | real.longer.rows.keys()) - {UNTUNED, *trained}  # no row: not run
    who = f"Only {joined([called(real.longer, method) for method in trained])}" if left_out else "All methods"
    parts = [f"{who} were trained for the paper's two epochs{real.note(against)}. The loss is {told}."]
    if sources := real.sources(real.longer, LORA):
        parts.append(f"By source ID-LoRA is {standing(real, sources, amounts=(AHEAD, BEHIND))}.")
    if ours := [pair for pair in scored(real.longer) if pair.first == SUBJECT and not pair.floor]:
        parts.append(f"Scores in % of LoRA and ID-LoRA: {scores_told(real, real.longer, ours)}.")
    if difference := trial_told(real, "longer_paper_heldout"):
        after = real.rates[SUBJECT]["longer_steps"]
        parts.append(f"At {real.paper_rate}, one run each, {difference} after {after} steps.")
    return "Longer training", " ".join(parts)


def benchmarks(real: Real) -> tuple[str, str]:
    """Who is ahead in the columns that are no losses; what is at chance or zero is named, and nothing said of it."""
    parts = []
    blocks = ((real.best, "the best rates"), (real.paper, real.paper_rate))
    floors = [_floors(real, scored(block)) for block, _ in blocks]
    if floors[0] == floors[1] != "":
        parts.append(f"Nobody is called ahead on {floors[0]}.")
    for (block, rate), own in zip(blocks, floors, strict=True):
        against = scored(block)
        ours = [pair for pair in against if pair.first == SUBJECT]
        at = f"At {rate}{real.note(against)}" if ours else ""
        if own and floors[0] != floors[1]:
            parts.append(f"{at} nobody is called ahead on {own}.")
        if not (shown := [pair for pair in ours if not pair.floor]):
            continue
        if block is real.best:
            parts.append(f"{at}, LoRA and ID-LoRA score in %: {scores_told(real, block, shown)}.")
        else:
            parts.append(f"{at} ID-LoRA is {standing(real, shown, amounts=VERDICTS)}.")
        parts.append(others_told(real, block, against))
    return "Benchmarks", " ".join(parts)


def _floors(real: Real, pairs: Iterable[Pair]) -> str:
    """The columns at chance or zero, and at which: "MMLU (at chance)"."""
    floors: dict[str, dict[str, None]] = {}
    for pair in pairs:
        if pair.floor:
            floors.setdefault(AT_FLOOR[pair.floor], {})[real.headings[pair.column]] = None
    return joined([f"{joined(short(columns))} ({floor})" for floor, columns in floors.items()])
