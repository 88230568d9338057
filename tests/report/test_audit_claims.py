"""Claims of the paper: verdicts are computed, change with the numbers, and stand beside ours."""

import csv
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_results import write

from reproduction.report.audit import AuditError, judge_all, load_claims
from reproduction.report.audit.claims import FAILS, HOLDS, NOISE, NOT_YET, OPPOSITE, SAME, UNDECIDED

WITHOUT_TORCH = """
import runpy, sys
from importlib.abc import MetaPathFinder

class Nowhere(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "peft", "hydra", "omegaconf", "datasets", "lm_eval"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
CLAIM = {
    "id": "one", "section": "5.2 Experiments on Single-Task", "page": 6, "quote": "…", "kind": "ordering",
    "expression": 't1["llama3", "idlora", "gsm8k"] > t1["llama3", "lora", "gsm8k"]',
}  # fmt: skip
Rows = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def judged(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Every claim judged on the paper's tables, without a measurement of ours."""
    return by_id(repository / "experiments", tmp_path_factory.mktemp("nothing"))


@pytest.fixture
def experiments(repository: Path, tmp_path: Path) -> Path:
    """A copy of the paper's tables and claims that a test may change."""
    for folder in [*(f"table{n}" for n in range(1, 9)), "audit"]:
        shutil.copytree(repository / "experiments" / folder, tmp_path / "experiments" / folder)
    return tmp_path / "experiments"


def by_id(experiments: Path, results: Path) -> Rows:
    return {row["id"]: row for row in judge_all(experiments, results, scale="tiny")}


def change(experiments: Path, table: str, key: dict[str, str], **values: str) -> None:
    """Overwrite columns of one row of the copy's paper.csv."""
    path = experiments / table / "paper.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    (row,) = [row for row in rows if row.items() >= key.items()]
    row.update(values)
    write(path, rows)


def judge_one(experiments: Path, results: Path, **fields: Any) -> dict[str, str]:
    """Judge `CLAIM` with these fields changed as the only claim of claims.yaml."""
    path = experiments / "audit" / "claims.yaml"
    path.write_text(yaml.safe_dump({"sets": {"ms": ["fft", "lora", "hydralora"]}, "claims": [CLAIM | fields]}))
    return by_id(experiments, results)["one"]


def write_orderings(results: Path, verdicts: dict[str, str], *, ahead: str = "idlora") -> None:
    """Write the committed reference's orderings of GSM8K: each method against ``ahead``."""
    named = {"base": "llama3", "column": "gsm8k", "leaning": 0}
    rows = [named | {"ahead": ahead, "behind": each, "verdict": verdict} for each, verdict in verdicts.items()]
    write(results / "reference" / "tiny" / "tables" / "table1_orderings.csv", rows)


def test_the_command_writes_the_committed_audit_to_the_byte_where_torch_cannot_be_imported(
    repository: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    for folder in ("counts", "theory", "reference"):
        results.mkdir(exist_ok=True)
        (results / folder).symlink_to(repository / "results" / folder)
    command = [sys.executable, "-c", WITHOUT_TORCH, repository / "scripts" / "audit.py", "--results", results]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0, done.stderr
    for name in ("audit.csv", "audit.md", "forensics.csv"):
        assert (results / "audit" / name).read_bytes() == (repository / "results" / "audit" / name).read_bytes(), name
    totals = done.stdout.splitlines()[-1]
    held, failed, undecided = map(int, re.findall(r"(\d+) (?:hold|do not hold|cannot)", totals)[:3])
    rows = list(csv.DictReader((results / "audit" / "audit.csv").read_text().splitlines()))
    assert held + failed + undecided == len(rows) > 100
    assert failed == sum(row["verdict"] == FAILS for row in rows)


def test_a_missing_table_is_one_sentence_and_an_exit_code(
    repository: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    shutil.copytree(repository / "experiments" / "audit", tmp_path / "audit")
    monkeypatch.setattr(sys, "argv", ["audit.py", "--experiments", str(tmp_path), "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(repository / "scripts" / "audit.py"), run_name="__main__")
    assert error.value.code == 2
    assert "table1/paper.csv" in capsys.readouterr().err


def test_a_claim_without_an_expression_says_why_and_one_without_measurements_that_there_are_none(judged: Rows) -> None:
    for row in judged.values():
        assert bool(row["expression"]) == (row["verdict"] != UNDECIDED), row["id"]
        assert row["note"] or row["verdict"] != UNDECIDED, row["id"]
    assert {row["ours_verdict"] for row in judged.values()} == {"", NOT_YET}


@pytest.mark.parametrize(
    ("claim", "table", "key", "values", "becomes"),
    [
        ("pmrc-outperforms", "table3", ("llama3_2_3b", "idlora_random", "mmlu"), {"value": "48.4"}, HOLDS),
        ("intro-6-absolute", "table2", ("llama3", "lora", "mmlu"), {"value": "45.0"}, HOLDS),
        ("multi-five-of-six", "table2", ("llama3", "lora", "commonsenseqa"), {"value": "47.5"}, FAILS),
        ("table2-daggers-complete", "table2", ("llama3", "idlora", "mmlu"), {"dagger": "yes"}, HOLDS),
    ],
)
def test_a_changed_number_or_mark_in_a_table_changes_the_verdict(
    claim: str, table: str, key: tuple, values: dict, becomes: str, judged: Rows, experiments: Path, tmp_path: Path
) -> None:
    change(experiments, table, dict(zip(("base", "method", "column"), key, strict=True)), **values)
    assert judged[claim]["verdict"] != becomes
    assert by_id(experiments, tmp_path)[claim]["verdict"] == becomes


def test_every_quotation_stands_in_the_paper(repository: Path, real_data: Path) -> None:
    paper = real_data.parent / "paper" / "id-lora.txt"
    if not paper.is_file():
        pytest.skip("the paper's text is not beside the data sets")

    def squeezed(text: str) -> str:
        return re.sub(r"[\s\-*^{}_|]+", "", text).replace("’", "'").lower()

    text = squeezed(paper.read_text(encoding="utf-8"))
    _, claims = load_claims(repository / "experiments" / "audit" / "claims.yaml")
    assert not [(each.id, part) for each in claims for part in each.quote.split("…") if squeezed(part) not in text]


@pytest.mark.parametrize(
    ("pair", "says", "reversed_says"),
    [
        ("same", SAME, OPPOSITE),
        ("opposite", OPPOSITE, SAME),
        ("within noise", NOISE, NOISE),
        ("at chance", NOISE, NOISE),
        ("missing", NOT_YET, NOT_YET),
    ],
)
def test_an_ordering_of_ours_is_read_whichever_the_paper_has_ahead(
    pair: str, says: str, reversed_says: str, experiments: Path, tmp_path: Path
) -> None:
    write_orderings(tmp_path, {"lora": pair})
    found = judge_one(experiments, tmp_path, ours={"tables": "same"})
    assert (found["ours_verdict"], found["ours_scale"]) == (says, "tiny (embedded scale)")
    assert found["verdict"] == HOLDS, "the paper's tables alone decide the verdict"
    write_orderings(tmp_path, {"idlora": pair}, ahead="lora")
    assert judge_one(experiments, tmp_path, ours={"tables": "same"})["ours_verdict"] == reversed_says


def test_what_a_user_has_run_decides_no_claim(experiments: Path, tmp_path: Path) -> None:
    write_orderings(tmp_path, {"lora": "same"})
    (tmp_path / "reference" / "tiny").rename(tmp_path / "tiny")
    assert judge_one(experiments, tmp_path, ours={"tables": "same"})["ours_verdict"] == NOT_YET


def test_one_pair_the_other_way_is_opposite_and_the_tally_counts_the_pairs(experiments: Path, tmp_path: Path) -> None:
    write_orderings(tmp_path, {"fft": "opposite", "lora": "same", "hydralora": "within noise"})
    expression = 'all(t1["llama3", "idlora", "gsm8k"] > t1["llama3", m, "gsm8k"] for m in ms)'
    found = judge_one(experiments, tmp_path, expression=expression, ours={"tables": "same"})
    assert found["ours_verdict"] == OPPOSITE
    assert found["ours"] == "3 pairs: 1 as claimed, 1 the other way, 1 within noise"


@pytest.mark.parametrize(
    "expression",
    [
        't1["llama3", "idlora", "gsm8k"] == quoted("63.5")',
        't1["llama3", "idlora", "gsm8k"] - t1["llama3", "lora", "gsm8k"] > 0',
        't1["llama3", "idlora", "gsm8k"] > t1["mistral", "idlora", "gsm8k"]',
    ],
)
def test_numbers_of_the_embedded_scale_never_meet_a_number_of_the_paper(
    expression: str, experiments: Path, tmp_path: Path
) -> None:
    with pytest.raises(AuditError, match="claim one"):
        judge_one(experiments, tmp_path, ours={"tables": expression})


@pytest.mark.parametrize(("trainable", "says"), [(49_020_928, FAILS), (45_298_483, HOLDS)])
def test_counts_of_ours_are_judged_by_their_own_expression(
    trainable: int, says: str, experiments: Path, tmp_path: Path
) -> None:
    rows = [
        {"table": "table6", "base": "llama3", "printed": "", "method": method, "rank": rank, "trainable": number}
        for method, rank, number in (("idlora", 128, trainable), ("lora", 32, 83_886_080))
    ]
    write(tmp_path / "counts" / "table6.csv", rows)
    ours = {"counts": 'fewer(our6["idlora", 128], our6["lora", 32]) == quoted("46")'}
    assert judge_one(experiments, tmp_path, ours=ours)["ours_verdict"] == says


@pytest.mark.parametrize(
    ("verdicts", "says", "holding"),
    [([HOLDS, FAILS], "holds in part", 1), ([HOLDS] * 2, HOLDS, 2), ([FAILS] * 2, FAILS, 0)],
)
def test_a_theory_verdict_is_over_all_settings_of_the_study(
    verdicts: list[str], says: str, holding: int, experiments: Path, tmp_path: Path
) -> None:
    rows = [{"claim": "theorem1", "statement": "A ≤ B", "verdict": verdict} for verdict in verdicts]
    write(tmp_path / "theory" / "verdicts.csv", rows)
    found = judge_one(experiments, tmp_path, expression="", reason="a theorem", ours={"theory": ["theorem1"]})
    assert (found["verdict"], found["ours_verdict"]) == (UNDECIDED, says)
    assert f"in {holding} of 2 settings" in found["ours"]


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"kind": "opinion"}, "opinion"),
        ({"reason": "also"}, "expression or the reason"),
        ({"expression": ""}, "expression or the reason"),
        ({"verdict": "holds"}, "verdict"),
        ({"ours": {"guess": "1 == 1"}}, "guess"),
        ({"expression": "t1['llama3', 'lora', 'pass@99'] > 1"}, "pass@99"),
        ({"readings": [{"reading": "…"}]}, "expression"),
        ({"real": [{"reading": "…", "expression": "1 == 1", "over": "sngle"}]}, "sngle"),
    ],
)
def test_a_claim_that_is_not_right_is_refused_with_its_id(
    fields: dict, value: str, experiments: Path, tmp_path: Path
) -> None:
    with pytest.raises(AuditError, match=f"claim one.*{value}"):
        judge_one(experiments, tmp_path, **fields)


def test_two_claims_of_one_id_and_a_number_that_cannot_be_read_are_refused(experiments: Path, tmp_path: Path) -> None:
    change(experiments, "table1", {"base": "llama3", "method": "lora", "column": "gsm8k"}, value="62,8")
    with pytest.raises(AuditError, match="table1 llama3 gsm8k: lora: '62,8'"):
        by_id(experiments, tmp_path)
    path = experiments / "audit" / "claims.yaml"
    path.write_text(yaml.safe_dump({"sets": {}, "claims": [CLAIM, CLAIM]}))
    with pytest.raises(AuditError, match="one more than once"):
        load_claims(path)
