"""What the committed reference of the small scale, a real pre-trained model, says about the paper: five sentences.

Every number is a table's and every "ahead", "behind" and "level" that of an interval over seeds and items (of learning
rates, where a rate has one run, that of the spread over seeds), so each sentence can come out either way.
"""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from idlora.records import write_text
from idlora.records.files import one_sentence
from idlora.report.grid import SMALL, UNTUNED
from idlora.report.measures import measure_of
from idlora.report.rates import spelled
from idlora.report.reference import reference_folder, widest_interval

TABLE, COLUMN = "table_controls", "loss"
"""The table and its column, the mean held-out loss over the sources, that the sentences are made of."""

SUBJECT, LORA, EQUAL = "idlora", "lora", "lora_equal"
ROWS = (
    "idlora_random", "idlora_serial", "idlora_largest_norm", "idlora_smallest_norm", "idlora_pivoted_qr",
)  # fmt: skip
DIRECTIONS = ("idlora_gaussian", "idlora_orthonormal", "idlora_equal_norm")
NAMES = {EQUAL: "LoRA at an equal count"}
"""What the sentences call a method whose row of the table has a longer name."""

BOOSTING = {"idlora_no_rb": "at the same count", "idlora_no_rb_same_rank": "at the same rank"}
AHEAD, LEVEL, BEHIND = "ahead of", "level with", "behind"
VERDICTS = (AHEAD, LEVEL, BEHIND)
LOSS = measure_of("nats_per_token")

Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The subject against another method: ``lead`` is how much lower its loss is, with the interval's ends."""

    other: str
    lead: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Where the subject stands: level wherever zero lies inside the interval."""
        return AHEAD if self.low > 0 else BEHIND if self.high < 0 else LEVEL

    @property
    def reversed(self) -> "Pair":
        """The other method against the subject."""
        return Pair(other=SUBJECT, lead=-self.lead, low=-self.high, high=-self.low)

    @property
    def amount(self) -> str:
        """How far, as a verdict wants it: a distance, or a signed difference where they are level."""
        if self.verdict == LEVEL:
            return f"({_signed(self.lead)} [{_signed(self.low)}, {_signed(self.high)}])"
        ends = sorted((abs(self.low), abs(self.high)))
        return f"by {LOSS.text(abs(self.lead))} [{LOSS.text(ends[0])}, {LOSS.text(ends[1])}]"


@dataclass(frozen=True, kw_only=True)
class Real:
    """The files that the sentences are made of: ``rows`` and ``rates`` by method, and the subject's ``pairs``."""

    rows: Mapping[str, Row]
    rates: Mapping[str, Row]
    pairs: Mapping[str, Pair]
    parameters: int | None

    def name(self, method: str) -> str:
        """A method as the sentences call it; the subject's label without what stands in parentheses."""
        label = self.rows[method]["method_label"]
        return NAMES.get(method) or (label.partition(" (")[0] if method == SUBJECT else label)

    def loss(self, method: str) -> str:
        """A mean loss, and its spread over the seeds where there are several."""
        spread = self.rows[method].get(f"{COLUMN}_spread")
        return self.rows[method][COLUMN] + (f" ± {spread}" if spread else "")

    def trained(self, method: str) -> str:
        """Trained parameters in millions."""
        return f"{int(self.rows[method]['parameters_trainable']) / 1e6:.2f}M"


def real_sentences(results: Path) -> list[str]:
    """The sentences, as Markdown; none where there is no reference of the small scale with the controls.

    One whose methods the reference lacks is left out. Raises `RecordError` where a file cannot be read.
    """
    folder = reference_folder(results, SMALL)
    rows = _by_method(folder / "tables" / f"{TABLE}.csv")
    if SUBJECT not in rows:
        return []
    real = Real(
        rows=rows,
        rates=_by_method(folder / "tables" / "rates.csv"),
        pairs=_pairs(_rows(folder / "significance" / f"{TABLE}.csv"), base=rows[SUBJECT]["base"]),
        parameters=_parameters(_rows(folder / "metrics.csv")),
    )
    said = (_best_rates(real), _papers_rate(real), _choice_of_rows(real), _directions(real), _limits(real))
    return [sentence for sentence in said if sentence]


def write_real(results: Path) -> Path | None:
    """Write the sentences into the reference's README.md; returns its path, None where there is nothing to say."""
    said = real_sentences(results)
    if not said:
        return None
    path = reference_folder(results, SMALL) / "README.md"
    pointer = "`report.html` has every table, figure and test; `tables/`, `significance/` and `records/` the numbers."
    write_text(path, "\n\n".join(["# ID-LoRA on a real pre-trained model", listed(said), pointer]) + "\n")
    return path


def listed(sentences: Iterable[str]) -> str:
    """The sentences as they stand in a Markdown file."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _best_rates(real: Real) -> str:
    rivals = [method for method in (LORA, EQUAL) if method in real.pairs]
    if not rivals:
        return ""
    losses = [f"{real.name(each)} ({real.trained(each)} trained) {real.loss(each)}" for each in (*rivals, SUBJECT)]
    subject = real.name(SUBJECT)
    stand = []
    for each in rivals:
        pair = real.pairs[each].reversed
        stand.append(f"{real.name(each)} is {pair.verdict} {subject} {pair.amount}")
    return (
        f"**Who is ahead.** At each method's own best learning rate the held-out losses in nats a token are "
        f"{_and(losses)}: {_and(stand)}."
    )


def _papers_rate(real: Real) -> str:
    if not {LORA, SUBJECT} <= real.rates.keys() & real.rows.keys():
        return ""
    ours, theirs = real.rates[SUBJECT], real.rates[LORA]
    noise = 2 * math.hypot(*(float(real.rows[each].get(f"{COLUMN}_spread") or 0) for each in (SUBJECT, LORA)))
    stand, told = {}, {}
    for rate in ("paper", "best"):
        leads = {
            steps: theirs_there - ours_there
            for column, steps in ((f"loss_{rate}", ours["steps"]), (f"longer_{rate}", ours["longer_steps"]))
            if None not in (ours_there := _number(ours[column]), theirs_there := _number(theirs[column]))
        }
        pairs = {
            steps: Pair(other=LORA, lead=lead, low=lead - noise, high=lead + noise) for steps, lead in leads.items()
        }
        stand[rate] = {steps: pair.verdict for steps, pair in pairs.items()}
        told[rate] = _by_steps(real, pairs)
    if not all(told.values()):
        return ""
    turned = any({stand["paper"][steps], stand["best"].get(steps)} == {AHEAD, BEHIND} for steps in stand["paper"])
    decides = "decides" if turned else "does not decide"
    best = " and ".join(spelled(float(row["best_rate"])) for row in (ours, theirs))
    small = f"a lead below {LOSS.text(noise)}, twice its deviation over seeds in held-out loss, would be none"
    resolved = f"; {small}" if noise else ""
    return (
        f"**The learning rate.** By the loss on validation rows, at the paper's {spelled(float(ours['paper_rate']))} "
        f"{told['paper']}; at each one's own best ({best}) {told['best']}: the learning rate {decides} who is ahead "
        f"(one run a rate{resolved}).{_starts(real)}"
    )


def _starts(real: Real) -> str:
    """What is steeper where training starts, as a sentence; none where it was not measured for both."""
    rows = [real.rates[each] for each in (SUBJECT, LORA)]
    if not all(row["largest_eigenvalue"] and row["a_row_norm"] for row in rows):
        return ""
    sharp, norms = ([float(row[column]) for row in rows] for column in ("largest_eigenvalue", "a_row_norm"))
    return (
        f" Where training starts, the largest Hessian eigenvalue over what is trained is {sharp[0]:.3g} for "
        f"{real.name(SUBJECT)} and {sharp[1]:.3g} for {real.name(LORA)}, whose rows of A are {norms[1]:.3g} long on "
        f"average where the frozen ones are {norms[0]:.3g}."
    )


def _by_steps(real: Real, pairs: Mapping[str, Pair]) -> str:
    """ "A is ahead of B by … after 200 steps and by … after 1,900 steps"; who is ahead is said where it changes."""
    parts, before = [], None
    for steps, pair in pairs.items():
        names = real.name(SUBJECT), real.name(pair.other)
        first, second = names[::-1] if pair.verdict == BEHIND else names
        who = f"{first} and {second} are level" if pair.verdict == LEVEL else f"{first} is ahead of {second}"
        far = f"({_signed(pair.lead)})" if pair.verdict == LEVEL else f"by {LOSS.text(abs(pair.lead))}"
        after = f"after {steps} steps" if steps else ""
        parts.append(" ".join(filter(None, ["" if pair.verdict == before else who, far, after])))
        before = pair.verdict
    return _and(parts)


def _choice_of_rows(real: Real) -> str:
    stand = _stand(real, ROWS)
    return stand and f"**Which rows.** As frozen bases, the rows that PMRC picks are {stand}."


def _directions(real: Real) -> str:
    parts = []
    if stand := _stand(real, DIRECTIONS):
        parts.append(f"PMRC's rows are {stand}")
    boosting = {method: f"the same method without it {where}" for method, where in BOOSTING.items()}
    if stand := _stand(real, BOOSTING, boosting):
        parts.append(f"with Rank Boosting {real.name(SUBJECT)} is {stand}")
    return f"**Whether they have to be rows.** {'; '.join(parts)}." if parts else ""


def _limits(real: Real) -> str:
    row, rate = real.rows[SUBJECT], real.rates.get(SUBJECT, {})
    size = f" of {real.parameters / 1e6:.0f}M parameters" if real.parameters else ""
    steps = f", {rate['steps']} steps" if rate.get("steps") else ""
    return (
        f"**What it is not.** All this is one model{size}, {row['base_label']}{steps}, {row['seeds']} "
        f"seed{'' if row['seeds'] == '1' else 's'} and held-out loss alone; the embedded "
        "world of the other tables proves that the path works and is no evidence about the paper."
    )


def _stand(real: Real, methods: Iterable[str], names: Mapping[str, str] | None = None) -> str:
    """ "ahead of A by …, and level with B (…)": the subject against each of the methods that were measured."""
    pairs = [real.pairs[method] for method in methods if method in real.pairs]
    groups: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for each in pairs:
        groups[each.verdict].append(f"{names[each.other] if names else real.name(each.other)} {each.amount}")
    return "; ".join(f"{verdict} {_and(own)}" for verdict, own in groups.items() if own)


def _and(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _signed(value: float) -> str:
    return LOSS.text(value, signed=True)


def _number(text: str) -> float | None:
    """A loss, None where there is none or the run diverged."""
    return float(text) if text and math.isfinite(float(text)) else None


def _pairs(tests: Iterable[Row], *, base: str) -> dict[str, Pair]:
    """The subject's lead over each method that is tested against it, over seeds and items where there are seeds."""
    found = {}
    for row in tests:
        if (row["base"], row["reference"], row["column"]) == (base, SUBJECT, COLUMN) and row["method"] != UNTUNED:
            low, high = widest_interval(row)  # a lead is the method's loss less the subject's
            found[row["method"]] = Pair(other=row["method"], lead=float(row["difference"]), low=low, high=high)
    return found


def _parameters(metrics: Iterable[Row]) -> int | None:
    untuned = (row["parameters_total"] for row in metrics if row["method"] == UNTUNED)
    return next((int(total) for total in untuned if total), None)


def _by_method(path: Path) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in _rows(path):
        found.setdefault(row["method"], row)
    return found


def _rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with one_sentence("read", path), path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
