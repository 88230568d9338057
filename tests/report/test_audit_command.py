"""`make audit` as a person runs it: no training package, three files, totals; a mistake is one sentence."""

import csv
import runpy
import shutil
import subprocess
import sys
import textwrap

import pytest

WITHOUT_TORCH = """
    import runpy, sys
    from importlib.abc import MetaPathFinder

    FORBIDDEN = {"torch", "transformers", "peft", "hydra", "omegaconf", "datasets", "lm_eval", "accelerate"}

    class Nowhere(MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in FORBIDDEN:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Nowhere())
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def done(repository, tmp_path_factory):
    """The command over the project's own claims, without any measurement of ours."""
    results = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT_TORCH), repository / "scripts" / "audit.py"]
    command += ["--results", results]
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=repository)
    assert process.returncode == 0, process.stderr
    return results / "audit", process.stdout


def read(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_it_runs_where_torch_cannot_be_imported_and_prints_totals_that_add_up(done):
    folder, printed = done
    rows = read(folder / "audit.csv")
    line = printed.splitlines()[-1]
    assert line.startswith(f"{len(rows)} claims: ")
    numbers = [int(part.split()[0]) for part in line.split(": ")[1].split(".")[0].split(", ")]
    assert sum(numbers) == len(rows)
    assert sum(row["verdict"] == "does not hold" for row in rows) == numbers[1]


def test_the_report_shows_every_claim_under_its_section_and_the_forensics(done):
    folder, printed = done
    text = (folder / "audit.md").read_text(encoding="utf-8")
    assert all(row["quote"] in text for row in read(folder / "audit.csv"))
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings.index("## Abstract") < headings.index("## §5.4 Efficiency Analysis") < headings.index("# Forensics")
    assert len(headings) == len(set(headings)), "a section stands twice: its claims are not together in claims.yaml"
    assert printed.splitlines()[-1] in text
    assert {row["check"] for row in read(folder / "forensics.csv")} == {
        line.removeprefix("## ") for line in headings[headings.index("# Forensics") + 1 :]
    }


def test_the_same_input_gives_the_same_bytes(done, repository, tmp_path, monkeypatch, capsys):
    folder, _ = done
    monkeypatch.setattr(sys, "argv", ["audit.py", "--results", str(tmp_path)])
    runpy.run_path(str(repository / "scripts" / "audit.py"), run_name="__main__")
    for name in ("audit.csv", "forensics.csv", "audit.md"):
        assert (tmp_path / "audit" / name).read_bytes() == (folder / name).read_bytes(), name
    assert "claims" in capsys.readouterr().out


def test_a_missing_table_is_one_sentence_and_an_exit_code(repository, tmp_path, monkeypatch, capsys):
    shutil.copytree(repository / "experiments" / "audit", tmp_path / "audit")
    monkeypatch.setattr(sys, "argv", ["audit.py", "--experiments", str(tmp_path), "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(repository / "scripts" / "audit.py"), run_name="__main__")
    assert error.value.code == 2
    assert "table1/paper.csv, which cannot be read" in capsys.readouterr().err
