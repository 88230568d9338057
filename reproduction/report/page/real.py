"""Card and sections on the pre-trained model: always the committed reference of the small scale, on every page."""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from reproduction.report.figures import Absent, Sources
from reproduction.report.grid import SMALL
from reproduction.report.page.blocks import Block, answer, details, figure, section, words, written_table
from reproduction.report.page.plots import Line, Mark, Number, leads, plot
from reproduction.report.real import Facts, listed, real_sentences, short_answers, summary_table, verdict
from reproduction.report.real.phrases import LORA, SUBJECT, millions, to_lora
from reproduction.report.reference import reference_folder
from reproduction.report.standings import LOSS, runs_and_intervals


class PretrainedModel:
    """The committed reference of the small scale; each part raises `Absent` without its tables."""

    def __init__(self, sources: Sources):
        self.sources = dataclasses.replace(sources, scale=SMALL, reference=True)

    @cached_property
    def facts(self) -> Facts:
        results = self.sources.results
        if not Facts.are_in(results):
            raise Absent(self.sources.name(reference_folder(results, SMALL) / "tables"), self.sources.make("tables"))
        return Facts(results, self.sources.experiments)

    @cached_property
    def answers(self) -> dict[str, str]:
        return short_answers(self.facts)

    def card(self) -> list[Block]:
        """Return the answer, and the losses of LoRA and ID-LoRA at both kinds of learning rate."""
        facts = self.facts
        lines = [
            Line(
                label=label,
                numbers=[Number(block.rows[method][LOSS], method=method) for method in (LORA, SUBJECT)],
                marks=[Mark(float(block.rows[method][LOSS]), method) for method in (LORA, SUBJECT)],
            )
            for label, block in (("Best rates", facts.best), ("Paper's rate", facts.paper))
        ]
        rows = facts.best.rows
        legend = [
            Number(f"{rows[method]['method_label']}{trains} {millions(rows[method])}", method=method)
            for method, trains in ((LORA, " trains"), (SUBJECT, ""))
        ]
        return [answer(self.answers["card"]), plot(lines, legend=legend, note=self.answers["note"])]

    def sections(self, tables: Mapping[str, list[Block]]) -> list[Block]:
        """Return the sections with the page's own ``tables``, by section."""
        return [
            section(
                "real",
                self._verdict,
                self._against_lora,
                self._short_table,
                lambda: tables.get("real", []),
                self._sentences,
            ),
            section(
                "rate",
                lambda: answer(self.answers["rate"]),
                lambda: figure(self.sources, "rates"),
                lambda: written_table(self.sources, "rates", command=self.sources.make("figure_rates")),
            ),
            section(
                "rows",
                lambda: answer(self.answers["rows"]),
                self._controls,
                lambda: tables.get("rows", []),
            ),
            section(
                "budget",
                lambda: answer(self.answers["budget"]),
                self._by_parameters,
                lambda: tables.get("budget", []),
            ),
        ]

    def _against_lora(self) -> Block:
        facts = self.facts
        plots = []
        for block, at in ((facts.best, "its best rate"), (facts.paper, facts.paper_rate)):
            pairs = to_lora(block)
            named = [(pair, block.rows[pair.first]["method_label"]) for pair in pairs]
            note = self._note(runs_and_intervals(pairs))
            plots.append(leads(named, title=f"Each method at {at}, against LoRA", note=note, other="LoRA"))
        return {"kind": "beside", "blocks": plots}

    def _controls(self) -> Block:
        rows = self.facts.controls.rows
        pairs = [pair.reversed for pair, _ in (*self.facts.frozen, *self.facts.boosting)]
        named = [(pair, rows[pair.first]["method_label"]) for pair in pairs]
        return leads(
            named, title="Controls against ID-LoRA", note=self._note(runs_and_intervals(pairs)), other="ID-LoRA"
        )

    def _note(self, runs: str) -> str:
        return f"Lead in held-out loss, nats a token, with 95 % intervals; hollow: level. {runs.capitalize()}."

    def _by_parameters(self) -> Block:
        """Return the loss of each LoRA and ID-LoRA of Table 7, ordered by trained parameters."""
        rows = [row for row in self.facts.budgets.rows.items() if row[0].partition("_")[0] in (LORA, SUBJECT)]
        lines = [
            Line(
                label=f"{millions(row)} {row['method_label']}",
                method=method,
                numbers=[Number(row[LOSS])],
                marks=[Mark(float(row[LOSS]), method)],
            )
            for method, row in sorted(rows, key=lambda row: int(row[1]["parameters_trainable"]))
        ]
        title = "Held-out loss by number of trained parameters"
        return plot(lines, title=title, axis=("← better", ""))

    def _verdict(self) -> Block:
        return answer(verdict(*self._places))

    def _short_table(self) -> Block:
        return details("Table 2 in short", words(summary_table(*self._places), caption="Table 2 in short"))

    def _sentences(self) -> Block:
        return details("All of it in words, with intervals", words(listed(real_sentences(*self._places))))

    @property
    def _places(self) -> tuple[Path, Path]:
        """The folders of results and experiments, whose reference is complete."""
        return self.facts.folder.parents[1], self.sources.experiments
