"""Sections that need no training: counts, costs, hyperparameters, theory, audit, provenance."""

from collections import Counter
from pathlib import Path

from reproduction.report.audit.claims import COLUMNS, UNMEASURED
from reproduction.report.costs import COMMAND as BENCHMARK
from reproduction.report.figures import Absent, Rows, Sources
from reproduction.report.page.blocks import Block, Part, data_table, figure, folded, heading, picture, section, words
from reproduction.report.page.markdown import image, sections, slug
from reproduction.report.page.provenance import gather_provenance
from reproduction.report.walltime import sentence

FEW = 12
"""Number of rows above which a table in the theory section is folded."""


def exact_sections(sources: Sources) -> list[Block]:
    """Return all these sections; missing results are listed with the command that makes them."""

    def counts(name: str, command: str) -> Part:
        return lambda: _report(sources, sources.results / "counts" / f"{name}.md", command=command)

    benchmark = sources.results / sources.benchmark / "benchmark.md"
    return [
        section(
            "counts",
            "make table6 figure1",
            lambda: figure(sources, "figure1"),
            counts("table6", "make table6"),
            counts("percentages", "make table6"),
        ),
        section(
            "costs",
            BENCHMARK,
            lambda: figure(sources, "figure3"),
            lambda: _report(sources, benchmark, command=BENCHMARK),
        ),
        section(
            "hyperparameters",
            "make table4 table5",
            counts("table4", "make table4"),
            counts("table5", "make table5"),
        ),
        section("theory", "make theory", lambda: _theory(sources)),
        section(
            "audit",
            "make audit",
            lambda: words(sections(_audit_text(sources))[0]),
            lambda: _claims(_audit_rows(sources, "audit")),
            lambda: _forensics(_audit_rows(sources, "forensics")),
        ),
        section(
            "provenance",
            "make tables",
            lambda: _provenance(sources),
            lambda: {"kind": "commands", "scale": sources.scale, "benchmark": BENCHMARK},
        ),
    ]


def counts_sentence(sources: Sources) -> str:
    """Return the sentence of Table 6's report on how many counts agree; "" without that report."""
    try:
        text = sources.text(sources.results / "counts" / "table6.md", command="make table6")
    except Absent:
        return ""
    return sections(text)[0].partition("\n\n")[0]


def audit_totals(sources: Sources) -> list[tuple[str, int]]:
    """Return verdict → number of claims, most frequent first; empty without the audit."""
    try:
        return Counter(row["verdict"] for row in _audit_rows(sources, "audit")).most_common()
    except Absent:
        return []


def _report(sources: Sources, path: Path, *, command: str) -> Block:
    """Return a report as written by its command."""
    text = sources.text(path, command=command)
    return words(text, caption=text.partition("\n")[0].removeprefix("# "))


def _audit_text(sources: Sources) -> str:
    return sources.text(sources.results / "audit" / "audit.md", command="make audit")


def _audit_rows(sources: Sources, name: str) -> Rows:
    return sources.rows(sources.results / "audit" / f"{name}.csv", command="make audit")


def _claims(rows: Rows) -> Block:
    """Return the claims and their filters, with a column for the real model if any claim has a result there."""
    claims = [dict.fromkeys(COLUMNS, "") | row for row in rows]
    choices = [
        {"field": name, "legend": heading(column), "counts": Counter(row[column] for row in claims).most_common()}
        for name, column in (("verdict", "verdict"), ("kind", "claim_kind"))
    ]
    real = any(row["real_verdict"] not in ("", UNMEASURED) for row in claims)
    return {"kind": "audit", "claims": claims, "choices": choices, "real": real}


def _forensics(rows: Rows) -> Block:
    caption = "Forensics: what the printed numbers themselves allow"
    return folded(data_table("forensics", caption, rows=rows, source="results/audit/forensics.csv"))


def _theory(sources: Sources) -> list[Block]:
    """Return the parts of the text with their curves, matched by name: theorem1_proof.png in "Theorem 1: …"."""
    folder = sources.results / "theory"
    head, parts = sections(sources.text(folder / "theory.md", command="make theory"))
    shown = "".join(body for _, body in parts)  # a report may place a curve itself
    curves = [path for path in sorted((folder / "figures").glob("*.png")) if path.name not in shown]
    blocks = [words(head, folder=folder)]
    for title, body in parts:
        own = [path for path in curves if path.stem.split("_")[0] in title.lower().replace(" ", "")]
        curves = [path for path in curves if path not in own]
        blocks.append(words(f"# {title}"))
        blocks += [_curve(path, sources) for path in own]
        blocks.append(words(body, caption=title, folder=folder, top=4, long=FEW))
    return blocks + [_curve(path, sources) for path in curves]


def _curve(path: Path, sources: Sources) -> Block:
    name = path.stem.replace("_", " ").replace("theorem", "theorem ")
    alt = f"Curves: {name}. The words beside them say what they show; the numbers are in results/theory."
    files = [sources.name(file) for file in (path, path.with_suffix(".pdf")) if file.is_file()]
    title = name[:1].upper() + name[1:]
    return picture(f"theory-{slug(path.stem)}", title, html=image(path, alt), files=files)


def _provenance(sources: Sources) -> list[Block]:
    found = gather_provenance(sources)
    rows = [["runs", str(found["runs"])], ["first started", found["first"]], ["last started", found["last"]]]
    for field, values in found["values"].items():
        shown = list(values) if len(values) == 1 else [f"{value} ({count} runs)" for value, count in values.items()]
        rows += [[field, "; ".join(shown)]] if values else []
    took = sentence(found.get("time", []))
    table = {"kind": "data_table", "id": "environment", "caption": "Environment of the runs", "source": ""}
    return [*([words(took)] if took else []), table | {"headings": ["what", "value"], "rows": rows, "numeric": []}]
