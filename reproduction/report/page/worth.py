"""How held-out loss and scores go together, as a section."""

from reproduction.report.figures import FIGURES, Absent, Sources
from reproduction.report.page.blocks import Section
from reproduction.report.page.parts import attempt, plate, written_table


def worth_sections(sources: Sources) -> list[Section]:
    """The figure and its table; none where no run has both all held-out losses and a score."""
    try:
        drawn = FIGURES["worth"](sources)
    except Absent:
        return []
    command = sources.make("figure_worth")
    blocks = [plate(sources, "worth", drawn)]
    blocks += attempt(lambda: [written_table(sources, "worth", command=command)])
    lead = "How held-out loss and scores go together over all runs on several tasks."
    return [
        Section(id="worth", title="What a difference of losses is worth", lead=lead, command=command, blocks=blocks)
    ]
