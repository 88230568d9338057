"""Sentences on a real model, from the template sentences.md. Every number comes from a table. Every "ahead", "behind"
and "level" comes from an interval over seeds and items (over items for one seed), so each sentence can come out either
way.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import jinja2

from reproduction.records import read_json, write_text
from reproduction.report.audit import read_on_real_model, real_markdown
from reproduction.report.grid import SMALL
from reproduction.report.intervals import CONFIDENCE
from reproduction.report.rates import spelled
from reproduction.report.real import phrases
from reproduction.report.real.facts import Facts, count_claims
from reproduction.report.reference import reference_folder
from reproduction.report.standings import runs, runs_and_intervals
from reproduction.report.walltime import sentence


def real_sentences(results: Path, experiments: Path) -> list[str]:
    """Return the sentences as Markdown; none if the reference of the small scale lacks a table.

    ``experiments`` has the columns' headings and the paper's claims. Raises `RecordError` if a file cannot be read,
    `GridError` and `AuditError`.
    """
    if not Facts.are_in(results):
        return []
    facts = Facts(results, experiments)
    text = render(
        "sentences.md",
        facts,
        confidence=f"{100 * CONFIDENCE:.0f}",
        runs=runs,
        runs_and_intervals=runs_and_intervals,
        claims=count_claims(read_on_real_model(experiments, results)),
    )
    return [" ".join(bullet.split()) for bullet in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


def render(template: str, facts: Facts, **values: object) -> str:
    """Return a template of this folder filled with the facts, the `phrases` and further values."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "rate": lambda text: spelled(float(text)),
        "three_digits": lambda text: f"{float(text):.3g}",
    }
    environment.globals |= vars(phrases) | {name: getattr(facts, name) for name in dir(facts) if name[0] != "_"}
    return environment.get_template(template).render(**values)


def write_real(results: Path, experiments: Path) -> Path | None:
    """Write the sentences, the runs' wall time, and the paper's claims into the reference's README.md.

    Returns its path, None without sentences.
    """
    sentences = real_sentences(results, experiments)
    if not sentences:
        return None
    path = reference_folder(results, SMALL) / "README.md"
    pointer = "`report.html` has every table, figure and test; `tables/`, `significance/` and `records/` the numbers."
    provenance = path.with_name("provenance.json")
    took = sentence(read_json(provenance).get("time", [])) if provenance.is_file() else ""
    claims = real_markdown(read_on_real_model(experiments, results))
    parts = ["# ID-LoRA on a real pre-trained model", listed(sentences), took, pointer]
    parts += ["## The paper's claims, one by one", claims]
    write_text(path, "\n\n".join(filter(None, parts)) + "\n")
    return path


def listed(sentences: Iterable[str]) -> str:
    """Return the sentences as a Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)
