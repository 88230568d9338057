"""Data and phrases for sentences.md from the committed reference of the small scale."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from reproduction.report.audit import OnReal
from reproduction.report.audit.claims import FAILS, HOLDS, UNRESOLVED
from reproduction.report.documents import read_csv
from reproduction.report.grid import SMALL, UNTUNED, load_grid
from reproduction.report.measures import measure_of
from reproduction.report.ordering import AT_FLOOR
from reproduction.report.rates import spelled
from reproduction.report.real.phrases import (
    HARMLESS,
    LORA,
    REFUSAL,
    SUBJECT,
    ahead_or_behind,
    called,
    floors,
    joined,
    millions,
    scored,
    shares,
    short,
    to_lora,
)
from reproduction.report.reference import reference_folder
from reproduction.report.standings import (
    AHEAD,
    BEHIND,
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
    runs_and_intervals,
)
from reproduction.report.worth import NAMES as OF_A_RUN
from reproduction.report.worth import associated

BLOCKS = {
    "best": ("table2", BEST_RATES),
    "paper": ("table2", PAPER_RATE),
    "longer": ("table_longer", LONGER),
    "controls": ("table_controls", CONTROLS),
    "single": ("table1", BEST_RATES),
    "single_paper": ("table1", PAPER_RATE),
    "budgets": ("table7", BEST_RATES),
    "clusters": ("table8", CONTROLS),
}
ROWS = ("idlora_random", "idlora_serial", "idlora_largest_norm", "idlora_smallest_norm", "idlora_pivoted_qr")
NO_ROWS = ("idlora_gaussian", "idlora_orthonormal", "idlora_equal_norm")
"""Controls that freeze other rows of the base, and no rows of it."""


class Facts:
    """Facts in the committed tables.

    Attributes:
        best, paper, longer: Table 2 at the methods' best learning rates and the paper's; its methods trained longer.
        controls, single, single_paper, budgets, clusters: the controls, Table 1 at both rates, Tables 7 and 8.
        rates: row of rates.csv by method.
        worth: rows of worth.csv, one per run; those of the experiments ``alike`` differ only in the method.
        steps, rates_of: training steps of Table 1's methods, and their learning rates in its two blocks.
        headings: of the columns of Tables 1 and 2, by id.
        parameters: number of the model's parameters.
    """

    def __init__(self, results: Path, experiments: Path):
        """Read the tables. Raises `RecordError` if a file cannot be read, and `GridError`."""
        self.folder = reference_folder(results, SMALL)
        for name, (table, base) in BLOCKS.items():
            setattr(self, name, read_block(self.folder, table, base))
        one, several, controls = (load_grid(experiments / table) for table in ("table1", "table2", "table_controls"))
        self.rates = {row["method"]: row for row in read_csv(self.folder / "tables" / "rates.csv")}
        self.worth = read_csv(self.folder / "tables" / "worth.csv")
        of_base = {BEST_RATES: several, CONTROLS: controls}
        self.alike = {grid.experiment(each, b) for b, grid in of_base.items() for each in grid.columns_at(SMALL)}
        trials = read_csv(experiments / "tuning" / SMALL / "trials.csv")
        self.steps = " or ".join(dict.fromkeys(row["steps"] for row in trials if row["experiment"] in one.experiments))
        self.rates_of = {base: one.block(base, SMALL) for base in (BEST_RATES, PAPER_RATE)}
        columns = [*one.columns_at(SMALL), *several.columns_at(SMALL)]
        self.headings = {column.id: column.heading_at(SMALL).replace(",", "") for column in columns}
        untuned = [row for row in read_csv(self.folder / "metrics.csv") if row["method"] == UNTUNED]
        self.parameters = next(int(row["parameters_total"]) for row in untuned if row["parameters_total"])
        self.paper_rate = f"the paper's {spelled(float(self.rates[SUBJECT]['paper_rate']))}"
        self.equal_count = self.controls.pairs["lora_equal", SUBJECT, LOSS]
        self.rows, self.no_rows = self._controls(ROWS), self._controls(NO_ROWS)
        self.frozen = [*self.rows, *self.no_rows]
        self.boosting = self._controls(["idlora_no_rb", "idlora_no_rb_same_rank"])

    @staticmethod
    def are_in(results: Path) -> bool:
        """Return whether the reference has every table that the sentences use."""
        names = {*(table for table, _ in BLOCKS.values()), "rates", "worth"}
        return all((reference_folder(results, SMALL) / "tables" / f"{name}.csv").is_file() for name in names)

    def note(self, pairs: Iterable[Pair]) -> str:
        """Return " (one run each …)" if the pairs have another number of runs than the losses at the best rates."""
        runs = runs_and_intervals(pairs)
        return "" if runs == runs_and_intervals(to_lora(self.best)) else f" ({runs})"

    def sources(self, block: Block, second: str) -> list[Pair]:
        """Return ID-LoRA against another method in the losses by source."""
        pairs = (block.pairs.get((SUBJECT, second, column)) for column in self.headings)
        return [pair for pair in pairs if pair and pair.measure.lower_is_better and pair.column != LOSS]

    def scores(self, block: Block, pairs: Sequence[Pair]) -> str:
        """List LoRA's score, ID-LoRA's, and the verdict: "GSM8K 2.5 and 2.8, level (+0.3 [-0.8, +1.4])"."""
        names = short(self.headings[pair.column] for pair in pairs)
        values = [" and ".join(block.rows[method][pair.column] for method in (LORA, SUBJECT)) for pair in pairs]
        stands = [f"{pair.verdict.split()[0]} {pair.amount}" for pair in pairs]
        return "; ".join(map("{} {}, {}".format, names, values, stands))

    def by_column(self, pairs: Iterable[Pair], *, amounts: Iterable[str] = ()) -> str:
        """List columns by verdict: "ahead on A and B; level on C", with differences for the verdicts in ``amounts``."""
        parts, pairs = [], list(pairs)
        for verdict in VERDICTS:
            own = [pair for pair in pairs if pair.verdict == verdict]
            names = short(self.headings[pair.column] for pair in own)
            if verdict in amounts:
                names = [f"{name} {pair.amount}" for name, pair in zip(names, own, strict=True)]
            parts += [f"{verdict.split()[0]} on {joined(names)}"] if own else []
        return "; ".join(parts)

    def others(self, block: Block) -> str:
        """List the scores in which methods other than ID-LoRA are ahead of LoRA or behind it."""
        others: dict[str, list[Pair]] = {}
        for pair in scored(block):
            if pair.first != SUBJECT and pair.verdict != LEVEL:
                others.setdefault(pair.first, []).append(pair)
        named = [f"{called(block, method)} is {self.by_column(own)}" for method, own in others.items()]
        return f"Of the others, {'; '.join(named)}." if named else "All others are level with LoRA."

    def floors(self, block: Block) -> str:
        return floors(block, self.headings)

    def decides(self) -> str:
        """State whether the learning rate decides which of ID-LoRA and LoRA is ahead."""
        ahead = {block.pairs[SUBJECT, LORA, LOSS].verdict for block in (self.paper, self.best)}
        if len(ahead) == 1:
            return "does not decide which"
        return "decides whether one" if LEVEL in ahead else "decides which"

    def trial(self, column: str) -> str:
        """State the difference between ID-LoRA's and LoRA's loss of one trial; "" if one is missing or diverged."""
        values = [float(self.rates[method][column] or math.inf) for method in (SUBJECT, LORA)]
        if not all(map(math.isfinite, values)):
            return ""
        difference, nats = values[0] - values[1], measure_of("nats_per_token")
        return f"ID-LoRA's loss is {nats.text(abs(difference))} {'below' if difference < 0 else 'above'} LoRA's"

    def trained_longer(self) -> str:
        methods = [LORA, *(pair.first for pair in to_lora(self.longer))]
        left_out = (self.best.rows.keys() | self.longer.rows.keys()) - {UNTUNED, *methods}  # no row: not run
        return f"Only {joined([called(self.longer, method) for method in methods])}" if left_out else "All methods"

    def single_pairs(self, block: Block) -> list[Pair]:
        """Return every trained method against LoRA in Table 1's losses and scores that are not at chance or zero."""
        columns = [column for column in self.headings if column not in (REFUSAL, HARMLESS)]
        return [pair for column in columns for pair in to_lora(block, column) if not pair.floor]

    def apart(self, block: Block) -> str:
        parts = []
        for is_loss, words in ((True, "in held-out loss on {} sources"), (False, "in {} scores")):
            own = [pair for pair in self.single_pairs(block) if pair.measure.lower_is_better is is_loss]
            number = len({pair.column for pair in own})
            parts += [f"{words.format(number)} {ahead_or_behind(block, own)}"] if own else []
        return ", and ".join(parts)

    def known_refusals(self) -> str:
        """List the refusals of the untuned model and of known answers that treat the two kinds of prompts unequally."""
        known: dict[str, list[str]] = {}
        for row in read_csv(self.folder / "tables" / "table1_known.csv"):
            known.setdefault(row["answers"], []).append(row["value"])
        row = self.single.rows[UNTUNED]
        parts = [f"{answers} {shares(values)}" for answers, values in known.items() if len(set(values)) > 1]
        return "; ".join([*parts, f"{row['method_label']} {shares([row[REFUSAL], row[HARMLESS]])}"])

    def in_sweeps(self) -> list[Pair]:
        blocks = self.budgets, self.clusters
        return [pair for block in blocks for pair in block.pairs.values() if pair.column == LOSS]

    def budget_pairs(self) -> list[Pair]:
        """Return each ID-LoRA of Table 7 against every LoRA there, ordered by trained parameters."""
        ordered = sorted(self.budgets.rows, key=self._trained)
        own, loras = ([m for m in ordered if m.partition("_")[0] == family] for family in (SUBJECT, LORA))
        return [self.budgets.pairs[method, lora, LOSS] for method in own for lora in loras]

    def smallest_lora(self) -> str:
        """State the smallest LoRA of Table 7 that is as good as the best ID-LoRA."""
        rows, pairs = self.budgets.rows, self.budget_pairs()
        best = min(dict.fromkeys(pair.first for pair in pairs), key=lambda method: float(rows[method][LOSS]))
        of_best = f"level with or ahead of the best ID-LoRA ({rows[best][LOSS]}, {millions(rows[best])})"
        row = next((rows[pair.second] for pair in pairs if pair.first == best and pair.verdict != AHEAD), None)
        if row is None:
            return f"No LoRA is {of_best}."
        return f"The smallest LoRA that is {of_best} trains {millions(row)} ({row[LOSS]})."

    def fair_budgets(self) -> str:
        """State which ID-LoRA is not behind any LoRA with at most as many trained parameters."""
        fair: dict[str, bool] = {}
        for pair in self.budget_pairs():
            more = self._trained(pair.second) > self._trained(pair.first)
            fair[pair.first] = fair.get(pair.first, True) and (more or pair.verdict != BEHIND)
        reached = [millions(self.budgets.rows[method]) for method, reaches in fair.items() if reaches]
        if not reached:
            return "No ID-LoRA"
        return "Every ID-LoRA" if len(reached) == len(fair) else f"Only ID-LoRA of {joined(reached)}"

    def clusters_by_rank(self) -> list[tuple[str, str, list[tuple[Pair, str]]]]:
        """Return for each rank of Table 8: k = 4, and its pairs with the other numbers of clusters."""

        def named(row: Row) -> str:
            return f"{row['method_label'].partition(', ')[0]} ({millions(row)})"

        rows, pairs, found = self.clusters.rows, self.clusters.pairs, []
        for method in (SUBJECT, "idlora_half"):
            others = [other for other in rows if re.fullmatch(rf"{method}_k\d+", other)]
            rank = rows[method]["method_label"].partition(", ")[2]
            found.append((rank, named(rows[method]), [(pairs[method, o, LOSS], named(rows[o])) for o in others]))
        return found

    def go_together(self, *, alike: bool) -> str:
        """List the scores by the sign of their association with the loss over trained runs."""
        rows = [
            row for row in self.worth if row["method"] != UNTUNED and (row["experiment"] in self.alike or not alike)
        ]
        notes = {pair.column: f", {AT_FLOOR[pair.floor]}" for pair in scored(self.best) if pair.floor and alike}
        groups: dict[str, list[tuple[str, str]]] = {"higher": [], "lower": [], "": []}
        counts: Counter[int] = Counter()
        benchmarks: dict[int, dict[str, None]] = {}
        for column in [name for name in rows[0] if name not in OF_A_RUN and "_ci_" not in name]:
            own = [row for row in rows if row[column]]
            losses, scores = (tuple(float(row[name]) for row in own) for name in ("loss", column))
            found = associated(losses, scores, tuple(row["method"] for row in own))
            low, high = found.rho_interval or (0, 0)
            way = "higher" if high < 0 else "lower" if low > 0 else ""  # the score that goes with a lower loss
            rho = f"({found.rho_text}{notes.get(column, '')})"
            groups[way].append((self.headings[column], rho))
            counts[len(own)] += 1
            benchmarks.setdefault(len(own), {})[self.headings[column].split()[0]] = None
        on = {}
        for way, own in groups.items():
            names = short(name for name, _ in own)
            on[way] = joined([f"{name} {rho}" for name, (_, rho) in zip(names, own, strict=True)])
        goes = " and with ".join(f"a {way} score on {on[way]}" for way in ("higher", "lower") if on[way])
        parts = [f"a lower loss goes with {goes}"] * bool(goes) + [f"nothing can be told on {on['']}"] * bool(on[""])
        (most, _), *others = counts.most_common()
        runs = [f"{most} runs", *(f"{n} on {joined(list(benchmarks[n]))}" for n, _ in others)]
        return f"({', '.join(runs)}), {'; '.join(parts)}"

    def benchmarks(self) -> list[str]:
        return short(dict.fromkeys(self.headings[pair.column] for pair in scored(self.best)))

    def _controls(self, methods: Iterable[str]) -> list[tuple[Pair, str]]:
        """Return ID-LoRA against those of the controls that were run, with their names."""
        pairs = (self.controls.pairs.get((SUBJECT, method, LOSS)) for method in methods)
        return [(pair, called(self.controls, pair.second)) for pair in pairs if pair]

    def _trained(self, method: str) -> int:
        return int(self.budgets.rows[method]["parameters_trainable"])


def count_claims(found: Sequence[OnReal]) -> dict[str, int]:
    """Count the paper's measured claims that hold here, fail or stay open, also by the kind of evidence."""
    held, failed, unresolved = ([each for each in found if each.found == kind] for kind in (HOLDS, FAILS, UNRESOLVED))
    about = [each for each in found if any(v.method.startswith(SUBJECT) for r in each.readings for v in r.values)]
    own_held = [each for each in about if each.found == HOLDS]
    return {
        "all": len(found),
        "held": len(held),
        "failed": len(failed),
        "unresolved": len(unresolved),
        "own": len(about),
        "own_held": len(own_held),
        "level": sum(any(c.symbol == "within" for c in each.readings[0].comparisons) for each in own_held),
        "by_loss": sum(each.readings[0].in_loss for each in found),
        "at_paper": sum(any(r.at_paper_rate and r.found == HOLDS for r in each.readings) for each in failed),
        "in_loss": sum(
            any(r.in_loss and not r.at_paper_rate and r.found == FAILS for r in each.readings) for each in unresolved
        ),
    }
