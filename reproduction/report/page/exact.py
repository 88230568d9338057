"""The sections that need no training: counts, hyperparameters, theory, audit; and where everything comes from."""

from collections import Counter
from pathlib import Path
from typing import Any

from reproduction.report.audit.claims import UNMEASURED
from reproduction.report.costs import COMMAND as BENCHMARK
from reproduction.report.figures import FIGURES, Absent, Rows, Sources
from reproduction.report.page.blocks import Audit, Choice, Claim, DataTable, Picture, Prose, Section
from reproduction.report.page.parts import attempt, folded, plain_table, plate
from reproduction.report.page.provenance import gather_provenance
from reproduction.report.page.words import heading, image, prose, sections, slug
from reproduction.report.walltime import sentence

COUNTS = ("table6", "percentages")
HYPERPARAMETERS = ("table4", "table5")
"""Reports under results/counts, shown as their commands wrote them."""

FEW = 12
"""Rows above which a table among the words about the theory is folded away."""

CLAIM = {
    "id": "id", "where": "section", "kind": "claim_kind", "quote": "quote", "expression": "expression",
    "printed": "paper_value", "verdict": "verdict", "note": "note", "ours": "ours", "ours_scale": "ours_scale",
    "ours_verdict": "ours_verdict", "real": "real", "real_verdict": "real_verdict",
}  # fmt: skip
"""A claim's fields → the columns of audit.csv."""

MAKES = (
    ("make table1 … table8, table_controls", "unfinished cells, table, tests", "results/{scale}/tables, significance"),
    ("make table_longer", "the same of a longer training, at the small scale", "results/small/tables, significance"),
    ("make tables", "all of them", "results/{scale}"),
    ("make list", "each cell's status and time", "the terminal"),
    ("make table4, table5", "the experiments' hyperparameters beside the paper's", "results/counts"),
    ("make table6", "all counts and percentages, without weights", "results/counts"),
    ("make figure1, figure4", "the paper's figures as PNG and PDF", "results/counts/figures, results/{scale}/figures"),
    ("make benchmark", "time and memory of every method on a small model", "results/cpu"),
    (BENCHMARK, "the same on LLaMA-3-8B's shape, on a GPU", "results/h200"),
    ("make figure3", "Figure 3 from the latter", "results/h200/figures"),
    ("make theory", "the simulations of Theorems 1 and 2", "results/theory"),
    ("make audit", "every claim with a number, decided by a program", "results/audit"),
    ("make report", "a page such as this one, of your own runs", "results/{scale}/report.html"),
    ("make reference", "the committed reference: every cell, its records, all from them", "results/reference/{scale}"),
    ("make rebuild", "the same from the committed records alone", "results/reference/{scale}"),
    ("make test", "the tests", "the terminal"),
)  # fmt: skip


def counts_section(sources: Sources) -> Section:
    """Table 6, the percentages and Figure 1(c): exact, from the models' shapes."""
    blocks = attempt(lambda: [plate(sources, "figure1", FIGURES["figure1"](sources))])
    for name in COUNTS:
        blocks += attempt(lambda name=name: [_report(sources, name, command="make table6")])
    lead = "Models are built from their configs without weights and adapted through the same code as training."
    return Section(id="counts", title="Counts", lead=lead, command="make table6 figure1", blocks=blocks)


def costs_section(sources: Sources) -> Section:
    """Figure 3 and the benchmark behind it: time and memory of every method."""
    blocks = attempt(lambda: [plate(sources, "figure3", FIGURES["figure3"](sources))])
    blocks += attempt(lambda: [_costs(sources)])
    lead = "Training steps, prefill and decoding on random weights of the whole shape, beside the frozen base."
    return Section(id="costs", title="Time and memory", lead=lead, command=BENCHMARK, blocks=blocks)


def hyperparameters_section(sources: Sources) -> Section:
    """Tables 4 and 5, from the experiment configs."""
    blocks = []
    for name in HYPERPARAMETERS:
        blocks += attempt(lambda name=name: [_report(sources, name, command=f"make {name}")])
    lead = "The experiments' own configs, read back and set beside the paper's tables."
    return Section(
        id="hyperparameters", title="Hyperparameters", lead=lead, command="make table4 table5", blocks=blocks
    )


def theory_section(sources: Sources) -> Section:
    """The simulations of Theorems 1 and 2: words and curves as `make theory` left them."""
    lead = (
        "Simulations on synthetic tasks with known clusters: where the theorems hold, and what an assumption is worth."
    )
    blocks = attempt(lambda: _theory(sources))
    return Section(id="theory", title="Theorems 1 and 2", lead=lead, command="make theory", blocks=blocks)


def audit_section(sources: Sources) -> Section:
    """Every claim with a number or an ordering, and the forensics."""
    folder = sources.results / "audit"
    blocks = attempt(lambda: [Prose(html=prose(sections(sources.text(folder / "audit.md", command="make audit"))[0]))])
    blocks += attempt(lambda: [_audit(sources.rows(folder / "audit.csv", command="make audit"))])
    blocks += attempt(lambda: [_forensics(sources.rows(folder / "forensics.csv", command="make audit"))])
    lead = (
        "Each claim that carries a number or an ordering, with the expression over the paper's tables that decides it."
    )
    return Section(id="audit", title="Audit of the paper's claims", lead=lead, command="make audit", blocks=blocks)


def counts_sentence(sources: Sources) -> str:
    """How many of Table 6's counts agree, in the words of its own report; empty where it was not made."""
    try:
        head, _ = sections(sources.text(sources.results / "counts" / "table6.md", command="make table6"))
    except Absent:
        return ""
    return head.partition("\n\n")[0]


def audit_totals(sources: Sources) -> list[tuple[str, int]]:
    """Verdict → number of claims, most frequent first; empty where the audit was not made."""
    try:
        rows = sources.rows(sources.results / "audit" / "audit.csv", command="make audit")
    except Absent:
        return []
    return Counter(row["verdict"] for row in rows).most_common()


def provenance_section(sources: Sources) -> Section:
    """Which code, versions and machine the runs of this scale come from, and the commands that make everything."""
    blocks = attempt(lambda: _provenance(gather_provenance(sources)))
    blocks.append(
        DataTable(
            id="commands",
            caption="The commands that make each part",
            headings=["command", "makes", "where"],
            rows=[[cell.format(scale=sources.scale) for cell in line] for line in MAKES],
        )
    )
    lead = "Code, versions, machine and dates of the runs behind the tables of results."
    return Section(
        id="provenance", title="Where the numbers come from", lead=lead, command="make tables", blocks=blocks
    )


def _report(sources: Sources, name: str, *, command: str) -> Prose:
    text = sources.text(sources.results / "counts" / f"{name}.md", command=command)
    return Prose(html=prose(text, caption=_title(text)))


def _costs(sources: Sources) -> Prose:
    text = sources.text(sources.results / sources.benchmark / "benchmark.md", command=BENCHMARK)
    return Prose(html=prose(text, caption=_title(text)))


def _title(markdown: str) -> str:
    return markdown.partition("\n")[0].removeprefix("# ")


def _theory(sources: Sources) -> list[object]:
    """The words part by part, each with the curves whose name its heading has: theorem1_proof.png in "Theorem 1: …"."""
    folder = sources.results / "theory"
    head, parts = sections(sources.text(folder / "theory.md", command="make theory"))
    curves = sorted((folder / "figures").glob("*.png"))
    blocks: list[object] = [Prose(html=prose(head, folder=folder))]
    for title, body in parts:
        own = [
            path for path in curves if _squeezed(path.stem.split("_")[0]) in _squeezed(title) and path.name not in body
        ]
        curves = [path for path in curves if path not in own]
        blocks.append(Prose(html=prose(f"# {title}")))
        blocks += [_curve(path, sources) for path in own]
        blocks.append(Prose(html=prose(body, caption=title, folder=folder, top=4, long=FEW)))
    return blocks + [_curve(path, sources) for path in curves if path.name not in "".join(body for _, body in parts)]


def _squeezed(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def _curve(path: Path, sources: Sources) -> Picture:
    name = path.stem.replace("_", " ").replace("theorem", "theorem ")
    return Picture(
        id=f"theory-{slug(path.stem)}",
        title=name[:1].upper() + name[1:],
        caption="",
        html=image(
            path, f"Curves: {name}. The words beside them say what they show; the numbers are in results/theory."
        ),
        files=tuple(
            sources.name(path.with_suffix(kind)) for kind in (".png", ".pdf") if path.with_suffix(kind).is_file()
        ),
    )


def _audit(rows: Rows) -> Audit:
    claims = [Claim(**{field: row.get(column) or "" for field, column in CLAIM.items()}) for row in rows]
    choices = []
    for field in ("verdict", "kind"):
        counted = Counter(getattr(claim, field) for claim in claims)
        choices.append(Choice(field=field, legend=heading(CLAIM[field]), values=counted.most_common()))
    measured = any(claim.real_verdict not in ("", UNMEASURED) for claim in claims)
    return Audit(claims=claims, choices=choices, real=measured)


def _forensics(rows: Rows) -> object:
    caption = "Forensics: what the printed numbers themselves allow"
    return folded(plain_table(rows, id="forensics", caption=caption, source="results/audit/forensics.csv"))


def _provenance(found: dict[str, Any]) -> list[object]:
    several = {field: values for field, values in found["values"].items() if values}
    rows = [["runs", str(found["runs"])], ["first started", found["first"]], ["last started", found["last"]]]
    for field, values in several.items():
        shown = list(values) if len(values) == 1 else [f"{value} ({count} runs)" for value, count in values.items()]
        rows.append([field, "; ".join(shown)])
    took = sentence(found.get("time", []))
    table = DataTable(id="environment", caption="Environment of the runs", headings=["what", "value"], rows=rows)
    return [*([Prose(html=prose(took))] if took else []), table]
