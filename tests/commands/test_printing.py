"""What a script prints arrives on a terminal of any encoding, and what it writes is UTF-8 in any locale."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from reproduction.cli import SPELT, printable, quiet
from reproduction.running.progress import Display


def printed(text: str, encoding: str, monkeypatch: pytest.MonkeyPatch, *, by=printable) -> str:
    """What arrives of a text on a standard output of some encoding."""
    arrived = io.BytesIO()
    with monkeypatch.context() as here:
        for name in ("stdout", "stderr"):
            here.setattr(sys, name, io.TextIOWrapper(arrived, encoding=encoding, errors="strict"))
        by()
        print(text, file=sys.stderr, end="", flush=True)
        print(text, end="", flush=True)
        whole = arrived.getvalue().decode(encoding)
    assert whole[: len(whole) // 2] * 2 == whole
    return whole[: len(whole) // 2]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "† — – × ± → · ≤ Σ α ü x² ™"),
        ("ascii", "+ - - x +/- -> . <= Sigma alpha ? x^2 ^TM"),
        ("latin-1", "+ - - × ± -> · <= Sigma alpha ü x² ^TM"),
        ("cp1252", "† — – × ± -> · <= Sigma alpha ü x² ™"),
        ("cp437", "+ - - x ± -> · ≤ Σ α ü x² ^TM"),
    ],
)
def test_a_sign_that_the_terminal_lacks_is_spelt_and_the_others_stay(monkeypatch, encoding, expected):
    assert printed("† — – × ± → · ≤ Σ α ü x² ™", encoding, monkeypatch) == expected


def test_every_process_that_works_prints_so(monkeypatch):
    assert printed("—", "ascii", monkeypatch, by=quiet) == "-"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "koi8-r", "cp437", "cp1251", "shift_jis", "iso8859-15"])
def test_whatever_the_text_it_is_printed(monkeypatch, encoding):
    every = "".join(map(chr, (*range(0x20, 0x3000), *range(0xD7F0, 0xE010), *range(0x1F300, 0x1F400))))
    printed(every, encoding, monkeypatch)


def test_signs_that_mean_different_things_in_a_table_stay_apart():
    meant = [SPELT[sign] for sign in "†—×±→·≤≥…√∞"]
    assert len(set(meant)) == len(meant)
    assert all(spelling.isascii() for spelling in SPELT.values())


def test_a_name_with_brackets_is_shown_as_it_is_while_it_is_at_work():
    shown = io.StringIO()
    with Display(1, 0, Console(file=shown, force_terminal=True, width=80)) as display:
        display.cell("results [b] [/x]")
    assert "results [b] [/x]" in shown.getvalue()


def script(
    repository: Path, name: str, *arguments: str, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-W", "ignore", str(repository / "scripts" / f"{name}.py"), *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | variables, capture_output=True, timeout=300)


def test_a_table_arrives_whole_in_a_locale_without_its_signs_and_is_written_as_in_any_other(repository, tmp_path):
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for folder, variables in (("here", {"PYTHONUTF8": "1"}), ("there", bare)):
        (tmp_path / folder).mkdir()
        done = script(repository, "report", "table=table1", "scale=tiny", cwd=tmp_path / folder, **variables)
        assert done.returncode == 1, done.stderr
    assert "cells of table1 are missing" in done.stderr.decode("ascii").splitlines()[-1]
    text = done.stdout.decode("ascii")
    assert "ID-LoRA" in text
    assert " - " in text, "an empty cell"
    assert "written: results/tiny/tables/table1.md" in text
    tables = sorted((tmp_path / "here/results/tiny").rglob("*.*"))
    assert any("—".encode() in path.read_bytes() for path in tables)
    for path in tables:
        other = tmp_path / "there" / path.relative_to(tmp_path / "here")
        assert other.read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", ["train", "audit"])
def test_help_arrives_on_a_terminal_without_its_signs(repository, tmp_path, name):
    # Hydra and argparse print it before the script's own body runs.
    text = (repository / "scripts" / f"{name}.py").read_text(encoding="utf-8")
    copy = tmp_path / "scripts" / f"{name}.py"
    copy.parent.mkdir()
    (tmp_path / "configs").symlink_to(repository / "configs")
    copy.write_text('"""† Σ."""\n' + text.replace('"""', '"""† Σ ', 1), encoding="utf-8")
    extra = ["hydra.help.template='† Σ'"] if name == "train" else []
    done = script(tmp_path, name, *extra, "--help", cwd=tmp_path, PYTHONIOENCODING="ascii", PYTHONPATH=str(repository))
    assert done.returncode == 0, done.stderr
    assert b"+ Sigma" in done.stdout
