"""Cards and sections that need no training: the paper's claims, costs, counts, theory, and how it was made."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reproduction.report.audit.claims import COLUMNS, FAILS, HOLDS, UNDECIDED, UNMEASURED, UNRESOLVED
from reproduction.report.costs import COMMAND as BENCHMARK
from reproduction.report.costs import newest, relative
from reproduction.report.figures import Absent, Rows, Sources
from reproduction.report.page.blocks import (
    Block,
    answer,
    data_table,
    details,
    figure,
    heading,
    picture,
    report,
    section,
    words,
)
from reproduction.report.page.markdown import image, sections, slug
from reproduction.report.page.plots import MINUS, Bar, Line, Number, plot
from reproduction.report.page.provenance import gather_provenance
from reproduction.report.real.phrases import LORA, SUBJECT
from reproduction.report.walltime import sentence

SHADES = {
    HOLDS: ("ink", "hold"),
    "holds in part": ("part", "hold in part"),
    FAILS: ("fails", "do not"),
    UNDECIDED: ("open", "cannot be decided"),
    "undecided": ("open", "undecided"),
}
"""Verdict, of the audit or of a simulation → CSS colour of its bar, and words."""

COUNTS = {"table6": "table6", "percentages": "table6", "table4": "table4", "table5": "table5"}
"""Reports of exact counts and settings, and the target that makes each."""


def exact_sections(sources: Sources) -> list[Block]:
    """Return all these sections; missing results are listed with the command that makes them."""
    return [
        section(
            "claims",
            lambda: answer(_claims_answer(sources) + _on_real_model(sources)),
            lambda: _claims_by_kind(sources),
            lambda: _claims(_audit(sources)),
            lambda: _forensics(sources),
            lambda: _how_audited(sources),
        ),
        section(
            "costs",
            lambda: answer(_costs_answer(sources)),
            lambda: figure(sources, "figure3"),
            lambda: report(sources.text(_benchmark(sources).with_suffix(".md"), command=BENCHMARK)),
        ),
        section(
            "counts",
            lambda: answer(_counts_answer(sources)),
            lambda: figure(sources, "figure1"),
            *(lambda name=name: report(_counts(sources, name)) for name in COUNTS),
        ),
        section("theory", lambda: _theory(sources)),
    ]


def made_section(sources: Sources) -> Block:
    """Return the section on the runs, machine and commands."""
    return section(
        "provenance",
        lambda: _provenance(sources),
        lambda: details(
            "The commands that make each part", {"kind": "commands", "scale": sources.scale, "benchmark": BENCHMARK}
        ),
    )


def claims_card(sources: Sources) -> list[Block]:
    """Return how many of the paper's claims hold by its own tables. Raises `Absent`."""
    counts = Counter(row["verdict"] for row in _audit(sources))
    verdicts = {"Hold": HOLDS, "Do not hold": FAILS, "Cannot be decided": UNDECIDED}
    lines = [
        Line(label=label, numbers=[Number(str(counts[verdict]))], bars=[Bar(0, counts[verdict], SHADES[verdict][0])])
        for label, verdict in verdicts.items()
    ]
    return [answer(_claims_answer(sources)), plot(lines, ends=(0, max(counts.values())))]


def costs_card(sources: Sources) -> list[Block]:
    """Return ID-LoRA's costs over LoRA's. Raises `Absent`."""
    ratios, row = _ratios(sources)
    names = {"time": "Step time", "memory": "Step memory", "file": "Saved file", "use": "Inference"}
    lines = []
    for name, label in names.items():
        low, high = (100 * (end - 1) for end in ratios[name])
        text = " to ".join(dict.fromkeys(f"{round(end):+d}" for end in (low, high)))
        ends = (low, high) if high > low else sorted((0.0, low))
        numbers = [Number(f"{text}\u00a0%".replace("-", MINUS))]
        lines.append(Line(label=label, numbers=numbers, bars=[Bar(*ends, f"hue-{SUBJECT}")]))
    note = f"ID-LoRA over LoRA; inference over merged LoRA. {row['model']}'s shape, {row['device']}."
    return [answer(_costs_answer(sources)), plot(lines, note=note, zero=0.0)]


def _benchmark(sources: Sources) -> Path:
    return sources.results / sources.benchmark / "benchmark.csv"


def _ratios(sources: Sources) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """Return `relative` of ID-LoRA and LoRA, and one row of its file. Raises `Absent` if a ratio is missing."""
    rows = newest(sources.rows(_benchmark(sources), command=BENCHMARK))
    ratios = relative(rows, method=SUBJECT, to=LORA)
    if len(ratios) < 5:
        raise Absent(f"{sources.name(_benchmark(sources))}: LoRA, merged and not, and ID-LoRA", BENCHMARK)
    return ratios, rows[0]


def _costs_answer(sources: Sources) -> str:
    ratios, _ = _ratios(sources)
    return (
        f"**{_than(ratios['time']).capitalize()} time** a training step than LoRA, {_than(ratios['memory'])} memory, "
        f"a file {_than(ratios['file'], 'larger', 'smaller')}; inference {_than(ratios['use'])} time than merged LoRA."
    )


def _than(ratio: tuple[float, float], more: str = "more", less: str = "less") -> str:
    """Return a ratio's range as a comparison: "2 % more", "8 to 18 % more", "no more"."""
    low, high = (round(100 * (end - 1)) for end in ratio)
    if low == high:
        return f"{abs(low)} % {less if low < 0 else more}" if low else f"no {more}"
    if low < 0 < high:
        return f"{-low} % {less} to {high} % {more}"
    low, high = sorted((abs(low), abs(high)))
    return f"{low} to {high} % {less if ratio[0] < 1 else more}"


def _audit(sources: Sources) -> Rows:
    rows = sources.rows(sources.results / "audit" / "audit.csv", command="make audit")
    return [dict.fromkeys(COLUMNS, "") | row for row in rows]


def _verdicts(label: str, counts: Counter[str]) -> Line:
    """Return a line of one bar for each verdict, side by side."""
    bars, numbers, reached = [], [], 0
    for verdict, (colour, name) in SHADES.items():
        if counts[verdict]:
            bars.append(Bar(reached, reached + counts[verdict], colour))
            numbers.append(Number(f"{counts[verdict]} {name}", colour=colour))
            reached += counts[verdict]
    return Line(label=label, numbers=numbers, bars=bars)


def _claims_answer(sources: Sources) -> str:
    rows = _audit(sources)
    counts = Counter(row["verdict"] for row in rows)
    otherwise = sum(row["verdict"] == FAILS and f": {HOLDS}" in row["note"] for row in rows)
    return (
        f"**{counts[HOLDS]} of {counts.total()} claims hold** by the paper's own tables; {counts[FAILS]} do not as "
        f"worded ({otherwise} of these do in another reading), {counts[UNDECIDED]} are undecided."
    )


def _on_real_model(sources: Sources) -> str:
    """Return how the claims come out on the real model; "" without a result there."""
    counts = Counter(row["real_verdict"] for row in _audit(sources) if row["real_verdict"] not in ("", UNMEASURED))
    if not counts:
        return ""
    held = counts.total() - counts[FAILS] - counts[UNRESOLVED]
    return (
        f" The pre-trained model can speak to {counts.total()} of them: there {held} hold, {counts[FAILS]} do not, and "
        f"{counts[UNRESOLVED]} are not resolved."
    )


def _claims_by_kind(sources: Sources) -> Block:
    claims = _audit(sources)
    kinds = [kind for kind, _ in Counter(row["claim_kind"] for row in claims).most_common()]
    counts = {kind: Counter(row["verdict"] for row in claims if row["claim_kind"] == kind) for kind in kinds}
    return plot(
        [_verdicts(f"{kind[:1].upper()}{kind[1:]}s", count) for kind, count in counts.items()],
        title="Claims by what they state",
        ends=(0, max(count.total() for count in counts.values())),
    )


def _claims(claims: Rows) -> Block:
    """Return the claims and their filters, with a column for the real model if any claim has a result there."""
    choices = [
        {"field": name, "legend": heading(column), "counts": Counter(row[column] for row in claims).most_common()}
        for name, column in (("verdict", "verdict"), ("kind", "claim_kind"))
    ]
    real = any(row["real_verdict"] not in ("", UNMEASURED) for row in claims)
    return details("Every claim", {"kind": "audit", "rows": claims, "choices": choices, "real": real})


def _forensics(sources: Sources) -> Block:
    rows = sources.rows(sources.results / "audit" / "forensics.csv", command="make audit")
    caption = "What the printed numbers themselves allow"
    return details(caption, data_table("forensics", caption, rows=rows, source="results/audit/forensics.csv"))


def _how_audited(sources: Sources) -> Block:
    text = sources.text(sources.results / "audit" / "audit.md", command="make audit")
    return details("How a claim is decided", words(sections(text)[0]))


def _counts(sources: Sources, name: str) -> str:
    return sources.text(sources.results / "counts" / f"{name}.md", command=f"make {COUNTS[name]}")


def _counts_answer(sources: Sources) -> str:
    """Return how many of the paper's numbers agree, as the reports say. Raises `Absent`."""
    parts, agree, total = [], 0, 0
    for name in COUNTS:
        text = _counts(sources, name)
        title = text.partition("\n")[0].removeprefix("# ").partition(":")[0]
        if found := re.search(r"^(\d+) of (?:the paper's )?(\d+)", sections(text)[0], re.MULTILINE):
            agree, total = agree + int(found[1]), total + int(found[2])
            parts.append(f"{title}, {found[1]} of {found[2]}")
    if not total:
        raise Absent(f"{sources.name(sources.results / 'counts')}: numbers that agree", "make table6")
    whole = "All of them." if agree == total else f"{agree} of {total}."
    return f"**{whole}** Numbers that agree with the paper's to the printed digit: {'; '.join(parts)}."


def _theory(sources: Sources) -> list[Block]:
    """Return the verdicts by study, and the parts of the text with their curves, each folded.

    A curve belongs to the part that its file names: theorem1_proof.png to "Theorem 1: …".
    """
    folder = sources.results / "theory"
    head, parts = sections(sources.text(folder / "theory.md", command="make theory"))
    shown = "".join(body for _, body in parts)  # a report may place a curve itself
    curves = [path for path in sorted((folder / "figures").glob("*.png")) if path.name not in shown]
    blocks = []
    for title, body in parts:
        own = [path for path in curves if _is_of(path.stem.split("_")[0], title)]
        curves = [path for path in curves if path not in own]
        pictures = [_curve(path, sources) for path in own]
        blocks.append(details(title, *pictures, words(body, caption=title, folder=folder, top=4)))
    rest = [_curve(path, sources) for path in curves]
    return [
        *_theory_verdicts(sources, [title for title, _ in parts]),
        *blocks,
        details("How it is read", words(head, folder=folder), *rest),
    ]


def _theory_verdicts(sources: Sources, titles: Sequence[str]) -> list[Block]:
    """Return how often the paper's statements hold: the first of each theorem in words, all by part as bars."""
    rows = sources.rows(sources.results / "theory" / "verdicts.csv", command="make theory")
    own = [row for row in rows if row["source"] != "ours"]
    found, lines = [], []
    for study in dict.fromkeys(row["study"] for row in own):
        of_study = [row for row in own if row["study"] == study]
        counts = Counter(row["verdict"] for row in of_study)
        lines.append(_verdicts(next((title for title in titles if _is_of(study, title)), study), counts))
        if study.startswith("theorem"):
            first = [row for row in of_study if row["claim"] == of_study[0]["claim"]]
            held = sum(row["verdict"] == HOLDS for row in first)
            found.append((held, len(first), of_study[0]["statement"]))
    stands = [f"“{statement}” holds throughout in {held} of {of} settings" for held, of, statement in found]
    whole = all(held == of for held, of, _ in found)
    most = max(line.bars[-1].high for line in lines)
    shown = plot(lines, title="The paper's statements, each in each of its settings", ends=(0, most))
    return [answer(f"**{'Yes.' if whole else 'Not as stated.'}** In simulation {', and '.join(stands)}."), shown]


def _is_of(study: str, title: str) -> bool:
    return study in title.lower().replace(" ", "")


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
    took, days = sentence(found.get("time", [])), dict.fromkeys((found["first"][:10], found["last"][:10]))
    devices = ", ".join(found["values"].get("trained on", {})) or "no named device"
    said = f"{found['runs']} runs on {devices}, {' to '.join(days)}, by `{sources.make('tables')}`."
    caption = "Environment of the runs"
    table = {"kind": "data_table", "id": "environment", "caption": caption, "source": "", "numeric": []}
    table |= {"headings": ["what", "value"], "rows": rows}
    return [answer(said), details("Environment and time of the runs", *([words(took)] if took else []), table)]
