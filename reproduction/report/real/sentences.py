"""What is said of a real model. Every number is a table's and every "ahead", "behind" and "level" that of an interval
over seeds and items (over items where there is one seed), so each sentence can come out either way.
"""

from collections.abc import Iterable
from pathlib import Path

from reproduction.records import read_json, write_text
from reproduction.report.audit import read_on_real_model, real_markdown
from reproduction.report.audit.claims import FAILS, HOLDS, UNRESOLVED, OnReal
from reproduction.report.grid import SMALL
from reproduction.report.ordering import AT_FLOOR
from reproduction.report.real import several
from reproduction.report.real.facts import LORA, SUBJECT, Real, read_real, scored, to_lora
from reproduction.report.real.rows import frozen
from reproduction.report.real.single import REFUSAL, single_tasks
from reproduction.report.real.sweeps import counts_and_clusters
from reproduction.report.real.words import joined, short
from reproduction.report.real.worth import go_together
from reproduction.report.reference import reference_folder
from reproduction.report.standings import runs
from reproduction.report.walltime import sentence


def real_sentences(results: Path, experiments: Path) -> list[str]:
    """The sentences, as Markdown; none where there is no reference of the small scale with Table 2 or the controls.

    One whose files or methods the reference lacks is left out. ``experiments`` has the columns' headings and the
    paper's claims. Raises `RecordError` where a file cannot be read, `GridError` and `AuditError`.
    """
    if not reference_folder(results, SMALL).is_dir():
        return []
    real = read_real(results, experiments)
    if SUBJECT not in real.at_best.rows:
        return []
    of_several = (several.who_is_ahead, several.learning_rate, several.longer, several.benchmarks)
    say = (*of_several, single_tasks, counts_and_clusters, _worth, frozen)
    told = [*(each(real) for each in say), _claims(results, experiments), _limits(real)]
    return [f"**{title}.** {text}" for title, text in told if text]


def write_real(results: Path, experiments: Path) -> Path | None:
    """Write the sentences, how long the runs took, and the paper's claims into the reference's README.md.

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
    if found := read_on_real_model(experiments, results):
        parts += ["## The paper's claims, one by one", real_markdown(found)]
    write_text(path, "\n\n".join(filter(None, parts)) + "\n")
    return path


def listed(sentences: Iterable[str]) -> str:
    """The sentences as they stand in a Markdown file."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _worth(real: Real) -> tuple[str, str]:
    floors = {pair.column: AT_FLOOR[pair.floor] for pair in scored(real.best) if pair.floor}
    return "What a loss difference is worth", go_together(real.worth, real.alike, real.headings, notes=floors)


def _claims(results: Path, experiments: Path) -> tuple[str, str]:
    """How many of the paper's claims the audit finds to hold here, of those that it has a measured reading for."""
    found = read_on_real_model(experiments, results)
    if not found:
        return "The paper's claims", ""

    def those(verdict: str, among: Iterable[OnReal] = found) -> list[OnReal]:
        return [each for each in among if each.found == verdict]

    held, failed, unresolved = map(those, (HOLDS, FAILS, UNRESOLVED))
    subject = [each for each in found if any(value.method.startswith(SUBJECT) for value in each.values)]
    own = those(HOLDS, subject)
    level = sum(each.told[0].is_parity for each in own)
    by_loss = sum(each.told[0].in_loss for each in found)
    at_paper = sum(any(t.at_paper_rate and t.found == HOLDS for t in each.told) for each in failed)
    in_loss = sum(any(t.in_loss and not t.at_paper_rate and t.found == FAILS for t in each.told) for each in unresolved)
    return "The paper's claims", (
        f"Of the paper's {len(found)} claims that this model can speak to, {len(held)} hold, {len(failed)} do not and "
        f"{len(unresolved)} are not resolved here; of the {len(subject)} about ID-LoRA {len(own)} hold ({level} of "
        f"them as parity, not as a lead). At the methods' best rates held-out loss decides {by_loss} and benchmark "
        f"scores {len(found) - by_loss}; of those that do not hold, {at_paper} have a reading at the paper's own rates "
        f"that holds against LoRA, and of those not resolved, {in_loss} have one in held-out loss that fails. "
        "How each is read stands in `results/reference/small/README.md`."
    )


def _limits(real: Real) -> tuple[str, str]:
    row, steps = real.at_best.rows[SUBJECT], real.rates.get(SUBJECT, {}).get("steps")
    size = f" of {real.parameters / 1e6:.0f}M parameters" if real.parameters else ""
    against = to_lora(real.at_best)
    seeds = f" with {runs(against)}" if against else ""
    long = f", trained for {steps} steps{seeds} unless it says otherwise" if steps else ""
    benchmarks = short(dict.fromkeys(real.headings[pair.column] for pair in scored(real.best)))
    refusals = ["refusals"] if (SUBJECT, LORA, REFUSAL) in real.single.pairs else []
    by = joined(["held-out loss", *benchmarks, *refusals]) + ("" if benchmarks or refusals else " alone")
    return "What it is not", (
        f"Everything above is one model{size}, {row['base_label']}{long}, judged by {by}. The embedded world of the "
        "other tables shows that the path works; it is no evidence about the paper."
    )
