"""The claims of the paper: a program decides each, a changed number changes its verdict, ours stands beside it."""

import csv
import re
import shutil

import pytest
import yaml

from reproduction.report.audit import AuditError, judge_all, load_claims
from reproduction.report.audit.claims import (
    COLUMNS,
    FAILS,
    HOLDS,
    KINDS,
    NOISE,
    NOT_YET,
    OPPOSITE,
    SAME,
    UNDECIDED,
    VERDICTS,
)
from reproduction.report.collect import write_csv
from reproduction.report.floor import CHANCE, ZERO
from reproduction.report.ordering import AT_FLOOR
from reproduction.report.ordering import NOISE as PAIR_NOISE
from reproduction.report.ordering import OPPOSITE as PAIR_OPPOSITE
from reproduction.report.ordering import SAME as PAIR_SAME


@pytest.fixture(scope="module")
def judged(repository, tmp_path_factory):
    """Every claim against the paper's tables, without a measurement of ours."""
    return by_id(repository / "experiments", tmp_path_factory.mktemp("nothing"))


@pytest.fixture
def experiments(repository, tmp_path):
    """A copy of the paper's tables and claims that a test may change."""
    copy = tmp_path / "experiments"
    for folder in [*(f"table{n}" for n in range(1, 9)), "audit"]:
        shutil.copytree(repository / "experiments" / folder, copy / folder)
    return copy


def by_id(experiments, results, scale="tiny"):
    return {each.id: each for each in judge_all(experiments, results, scale=scale)}


def change(experiments, table, key, value, *, column="value"):
    """Overwrite one printed number of the copy; ``key`` names the cell."""
    path = experiments / table / "paper.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    (row,) = [row for row in rows if all(row[name] == part for name, part in key.items())]
    row[column] = value
    write_csv(path, tuple(rows[0]), rows)


def write_claims(experiments, *claims, sets=None):
    path = experiments / "audit" / "claims.yaml"
    path.write_text(yaml.safe_dump({"sets": sets or {}, "claims": list(claims)}), encoding="utf-8")
    return path


CLAIM = {
    "id": "one", "section": "5.2 Experiments on Single-Task", "page": 6, "quote": "…", "kind": "ordering",
    "expression": 't1["llama3", "idlora", "gsm8k"] > t1["llama3", "lora", "gsm8k"]',
}  # fmt: skip


def test_every_claim_is_judged_and_the_three_verdicts_all_occur(judged):
    assert len(judged) >= 60
    assert {each.verdict for each in judged.values()} == set(VERDICTS)
    assert {each.claim_kind for each in judged.values()} == set(KINDS)
    for each in judged.values():
        assert each.quote, each.id
        assert each.section, each.id
        assert bool(each.expression) == (each.verdict != UNDECIDED), each.id
        assert each.note or each.verdict != UNDECIDED, f"{each.id} does not say why it is open"


def test_no_verdict_is_typed_into_the_claims(repository):
    text = (repository / "experiments" / "audit" / "claims.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    assert not re.search(r"\bholds\b|does not hold|cannot be decided|verdict:", text.replace("No verdict stands", ""))
    assert set().union(*data["claims"]) <= {
        "id", "section", "page", "quote", "kind", "reading", "expression", "reason", "readings", "ours", "real",
        "real_only",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ("method-small-router", FAILS),
        ("abstract-46-fewer", FAILS),
        ("intro-6-absolute", FAILS),
        ("single-42-to-84", FAILS),
        ("multi-five-of-six", HOLDS),
        ("multi-three-of-six", FAILS),
        ("single-50-fewer-than-dora", FAILS),
        ("pmrc-outperforms", FAILS),
        ("parity-equal-budgets", FAILS),
        ("ablation-matched-budgets", FAILS),
        ("table2-daggers-complete", FAILS),
        ("parity-consistently-surpasses", FAILS),
        ("appendix-both-improve", FAILS),
        ("rb-consistent-gains", FAILS),
        ("single-match-or-outperform", FAILS),
        ("appendix-decline-at-8", HOLDS),
        ("setup-identical-hyperparameters", FAILS),
        ("figure1-five-times", HOLDS),
        ("appendix-fewest-parameters", HOLDS),
        ("single-highest-pass10", HOLDS),
        ("efficiency-45-less-memory", UNDECIDED),
        ("method-theorem1", UNDECIDED),
    ],
)
def test_the_known_findings_come_out(claim, verdict, judged):
    assert judged[claim].verdict == verdict, judged[claim].note


@pytest.mark.parametrize(
    ("claim", "table", "key", "value", "becomes"),
    [
        ("pmrc-outperforms", "table3", ("llama3_2_3b", "idlora_random", "mmlu"), "48.4", HOLDS),
        ("intro-6-absolute", "table2", ("llama3", "lora", "mmlu"), "45.0", HOLDS),
        ("multi-three-of-six", "table2", ("mistral", "hydralora", "pass@10"), "45.8", HOLDS),
        ("multi-five-of-six", "table2", ("llama3", "lora", "commonsenseqa"), "47.5", FAILS),
        ("single-highest-pass10", "table1", ("mistral", "dora", "pass@10"), "46.9", FAILS),
        ("single-equal-dora", "table1", ("llama3", "dora", "gsm8k"), "63.4", FAILS),
        ("rb-consistent-gains", "table3", ("llama3_2_3b", "idlora_no_rb", "pass@10"), "38.1", HOLDS),
        ("appendix-decline-at-8", "table8", ("llama3_2_3b", "idlora_k8", "gsm8k"), "39.7", FAILS),
        ("appendix-same-experiment", "table7", ("llama3", "lora", "pass@1"), "39.1", FAILS),
        ("table2-daggers-complete", "table2", ("llama3", "idlora", "mmlu"), "49.0", HOLDS),
    ],
)
def test_a_changed_number_in_a_table_changes_the_verdict(
    claim, table, key, value, becomes, judged, experiments, tmp_path
):
    change(experiments, table, dict(zip(("base", "method", "column"), key, strict=True)), value)
    assert judged[claim].verdict != becomes
    assert by_id(experiments, tmp_path)[claim].verdict == becomes


def test_a_changed_count_and_a_changed_mark_change_verdicts(judged, experiments, tmp_path):
    change(experiments, "table6", {"method": "idlora", "rank": "128"}, "45.3M", column="printed")
    change(experiments, "table2", {"base": "llama3", "method": "idlora", "column": "mmlu"}, "yes", column="dagger")
    found = by_id(experiments, tmp_path)
    for claim in ("abstract-46-fewer", "abstract-54-percent", "table2-daggers-complete"):
        assert (judged[claim].verdict, found[claim].verdict) == (FAILS, HOLDS), claim


def test_the_note_says_what_fails_and_what_another_reading_would_say(judged):
    assert "idlora 48.5 against idlora_random 48.5 (a tie as printed)" in judged["pmrc-outperforms"].note
    assert "ties allowed: holds (12 of 12)" in judged["pmrc-outperforms"].note
    assert judged["intro-6-absolute"].paper_value.startswith("2.90")
    assert "relative to LoRA: holds (6.03" in judged["intro-6-absolute"].note


def test_every_quotation_stands_in_the_paper(repository, real_data):
    paper = real_data.parent / "paper" / "id-lora.txt"
    if not paper.is_file():
        pytest.skip("the paper's text is not beside the data sets")

    def squeezed(text):
        return re.sub(r"[\s\-*^{}_|]+", "", text).replace("’", "'").lower()

    text = squeezed(paper.read_text(encoding="utf-8"))
    _, claims = load_claims(repository / "experiments" / "audit" / "claims.yaml")
    missing = [(claim.id, part) for claim in claims for part in claim.quote.split("…") if squeezed(part) not in text]
    assert not missing
    assert max(len(claim.quote) for claim in claims) < 130, "quotations are short"


def test_without_measurements_every_claim_with_a_counterpart_says_so(judged):
    said = {each.ours_verdict for each in judged.values()}
    assert said == {"", NOT_YET}
    assert sum(each.ours_verdict == NOT_YET for each in judged.values()) > 50


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        (PAIR_SAME, SAME),
        (PAIR_OPPOSITE, OPPOSITE),
        (PAIR_NOISE, NOISE),
        (AT_FLOOR[CHANCE], NOISE),
        (AT_FLOOR[ZERO], NOISE),
        (None, NOT_YET),
    ],
)
@pytest.mark.parametrize(
    ("paper_ahead", "expression"),
    [
        ("idlora", CLAIM["expression"]),
        ("lora", CLAIM["expression"]),
        ("idlora", 't1["llama3", "lora", "gsm8k"] <= t1["llama3", "idlora", "gsm8k"]'),
    ],
)
def test_an_ordering_of_ours_is_read_whichever_the_paper_has_ahead(
    pair, says, paper_ahead, expression, experiments, tmp_path
):
    write_claims(experiments, CLAIM | {"expression": expression, "ours": {"tables": "same"}})
    behind = "lora" if paper_ahead == "idlora" else "idlora"
    row = {"base": "llama3", "column": "gsm8k", "ahead": paper_ahead, "behind": behind, "verdict": pair, "leaning": 0}
    rows = [row] if pair else []
    write_csv(tmp_path / "reference" / "tiny" / "tables" / "table1_orderings.csv", tuple(row), rows)
    found = by_id(experiments, tmp_path)["one"]
    swapped = {SAME: OPPOSITE, OPPOSITE: SAME}.get(says, says)
    assert found.ours_verdict == (says if paper_ahead == "idlora" else swapped)
    assert found.ours_scale == "tiny (embedded scale)"
    assert found.verdict == HOLDS, "the paper's tables alone decide the verdict"


def test_what_a_user_has_run_decides_no_claim(experiments, tmp_path):
    write_claims(experiments, CLAIM | {"ours": {"tables": "same"}})
    row = {"base": "llama3", "column": "gsm8k", "ahead": "idlora", "behind": "lora", "verdict": PAIR_SAME, "leaning": 0}
    write_csv(tmp_path / "tiny" / "tables" / "table1_orderings.csv", tuple(row), [row])
    assert by_id(experiments, tmp_path)["one"].ours_verdict == NOT_YET


def test_one_pair_the_other_way_is_opposite_and_the_tally_tells(experiments, tmp_path):
    expression = 'all(t1["llama3", "idlora", "gsm8k"] > t1["llama3", m, "gsm8k"] for m in ms)'
    sets = {"ms": ["fft", "lora", "hydralora"]}
    write_claims(experiments, CLAIM | {"expression": expression, "ours": {"tables": "same"}}, sets=sets)
    columns = ("base", "column", "ahead", "behind", "verdict", "leaning")
    pairs = {"fft": PAIR_OPPOSITE, "lora": PAIR_SAME, "hydralora": PAIR_NOISE}
    rows = [dict(zip(columns, ("llama3", "gsm8k", "idlora", m, v, 0), strict=True)) for m, v in pairs.items()]
    write_csv(tmp_path / "reference" / "tiny" / "tables" / "table1_orderings.csv", columns, rows)
    found = by_id(experiments, tmp_path)["one"]
    assert found.ours_verdict == OPPOSITE
    assert found.ours == "3 pairs: 1 as claimed, 1 the other way, 1 within noise"


def test_numbers_of_the_embedded_scale_never_meet_a_number_of_the_paper(experiments, tmp_path):
    columns = ("base", "column", "ahead", "behind", "verdict", "leaning")
    write_csv(tmp_path / "reference" / "tiny" / "tables" / "table1_orderings.csv", columns, [])
    for expression in (
        't1["llama3", "idlora", "gsm8k"] == quoted("63.5")',
        't1["llama3", "idlora", "gsm8k"] - t1["llama3", "lora", "gsm8k"] > 0',
        't1["llama3", "idlora", "gsm8k"] > t1["mistral", "idlora", "gsm8k"]',
    ):
        write_claims(experiments, CLAIM | {"ours": {"tables": expression}})
        with pytest.raises(AuditError, match="claim one"):
            by_id(experiments, tmp_path)


def test_counts_of_ours_are_judged_by_their_own_expression(experiments, tmp_path):
    ours = {"counts": 'fewer(our6["idlora", 128], our6["lora", 32]) == quoted("46")'}
    write_claims(experiments, CLAIM | {"ours": ours})
    columns = ("method", "rank", "trainable", "printed")
    for trainable, says in ((49_020_928, FAILS), (45_298_483, HOLDS)):
        rows = [{"method": "idlora", "rank": 128, "trainable": trainable}]
        rows.append({"method": "lora", "rank": 32, "trainable": 83_886_080})
        write_csv(tmp_path / "counts" / "table6.csv", columns, rows)
        found = by_id(experiments, tmp_path)["one"]
        assert (found.ours_verdict, found.ours_scale) == (says, "exact counts")


def test_a_theory_verdict_is_over_all_settings_of_the_study(experiments, tmp_path):
    reason = {"expression": "", "reason": "a theorem", "kind": "theorem"}
    write_claims(experiments, CLAIM | reason | {"ours": {"theory": ["theorem1"]}})
    columns = ("claim", "statement", "setting", "verdict")

    def write(*verdicts):
        rows = [
            dict(zip(columns, ("theorem1", "A ≤ B", f"setting {n}", each), strict=True))
            for n, each in enumerate(verdicts)
        ]
        write_csv(tmp_path / "theory" / "verdicts.csv", columns, rows)
        return by_id(experiments, tmp_path)["one"]

    found = write("holds", "does not hold")
    assert (found.ours_verdict, found.ours) == ("holds in part", "A ≤ B: throughout in 1 of 2 settings")
    assert found.verdict == UNDECIDED
    assert write("holds", "holds").ours_verdict == "holds"
    assert write("does not hold").ours_verdict == "does not hold"


def test_every_theory_claim_that_is_named_exists_where_the_theory_was_run(repository):
    path = repository / "results" / "theory" / "verdicts.csv"
    if not path.is_file():
        pytest.skip("results/theory has not been made")
    known = {row["claim"] for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())}
    _, claims = load_claims(repository / "experiments" / "audit" / "claims.yaml")
    assert {name for claim in claims for name in claim.ours.get("theory", ())} <= known


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        (CLAIM | {"kind": "opinion"}, "claim one: kind is 'opinion'"),
        (CLAIM | {"reason": "also"}, "claim one needs an expression or the reason"),
        (CLAIM | {"expression": ""}, "claim one needs an expression or the reason"),
        (CLAIM | {"verdict": "holds"}, "claim one: .*verdict"),
        (CLAIM | {"ours": {"guess": "1 == 1"}}, "claim one: ours is"),
        (CLAIM | {"expression": "t1['llama3', 'lora', 'pass@99'] > 1"}, "claim one: .*has no llama3, lora, pass@99"),
        (CLAIM | {"readings": [{"reading": "…"}]}, "claim one: .*expression"),
    ],
)
def test_a_claim_that_is_not_right_is_refused_with_its_id(claim, told, experiments, tmp_path):
    write_claims(experiments, claim)
    with pytest.raises(AuditError, match=told):
        by_id(experiments, tmp_path)


def test_two_claims_of_one_id_are_refused(experiments):
    with pytest.raises(AuditError, match="names one more than once"):
        load_claims(write_claims(experiments, CLAIM, CLAIM))


def test_a_number_that_cannot_be_read_names_its_cell(experiments, tmp_path):
    change(experiments, "table1", {"base": "llama3", "method": "lora", "column": "gsm8k"}, "62,8")
    with pytest.raises(AuditError, match="table1 llama3 gsm8k: lora: '62,8' is no printed number"):
        by_id(experiments, tmp_path)


def test_the_columns_of_the_file_are_those_that_readers_rely_on():
    assert COLUMNS == (
        "id", "section", "quote", "claim_kind", "expression", "paper_value", "verdict", "note", "ours", "ours_scale",
        "ours_verdict", "real", "real_verdict",
    )  # fmt: skip
