"""The learning rates as a section, and what a real model says of the paper as the first words of the page."""

from reproduction.report.figures import FIGURES, Sources, has_rates
from reproduction.report.page.blocks import Prose, Section
from reproduction.report.page.parts import attempt, plate, written_table
from reproduction.report.page.words import prose
from reproduction.report.real import listed, real_sentences


def rates_sections(sources: Sources) -> list[Section]:
    """Every trial's loss against its learning rate, and the table; none where no trial has the paper's rate."""
    if not has_rates(sources):
        return []
    command = sources.make("figure_rates")
    blocks = attempt(lambda: [plate(sources, "rates", FIGURES["rates"](sources))])
    blocks += attempt(lambda: [written_table(sources, "rates", command=command)])
    lead = "What each method does at each learning rate, the paper's and its own best, and what may explain it."
    return [Section(id="rates", title="Learning rates", lead=lead, command=command, blocks=blocks)]


def real_words(sources: Sources) -> Prose | None:
    """What the committed reference of the small scale says; None where there is none."""
    said = real_sentences(sources.results, sources.experiments)
    return Prose(html=prose(listed(said))) if said else None
