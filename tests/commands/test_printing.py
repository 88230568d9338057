"""Scripts print on terminals of any encoding and write UTF-8 files in any locale."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from reproduction.cli import printable
from reproduction.running.progress import LiveProgress


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "† — – × ± → · ≤ Σ α ü ™"),
        ("ascii", "+ - - x +/- -> . <= Sigma alpha ? ?"),
        ("latin-1", "+ - - × ± -> · <= Sigma alpha ü ?"),
        ("cp437", "+ - - x ± -> · ≤ Σ α ü ?"),
    ],
)
def test_a_sign_that_the_terminal_lacks_is_spelt_and_the_others_stay(monkeypatch, encoding, expected):
    arrived = io.BytesIO()
    with monkeypatch.context() as here:
        for name in ("stdout", "stderr"):
            here.setattr(sys, name, io.TextIOWrapper(arrived, encoding=encoding, errors="strict"))
        printable()
        for stream in (sys.stderr, sys.stdout):
            print("† — – × ± → · ≤ Σ α ü ™", file=stream, end="", flush=True)
        assert arrived.getvalue().decode(encoding) == 2 * expected


def test_a_name_with_brackets_is_shown_as_it_is_while_it_is_at_work():
    shown = io.StringIO()
    with LiveProgress(1, 0, Console(file=shown, force_terminal=True, width=80)) as display:
        display.cell("results [b] [/x]")
    assert "results [b] [/x]" in shown.getvalue()


def test_a_table_arrives_whole_in_a_locale_without_its_signs_and_is_written_with_them(repository, tmp_path):
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, str(repository / "scripts" / "report.py"), "table=table1", "scale=tiny"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | bare, capture_output=True)
    assert done.returncode == 1, done.stderr
    assert "cells of table1 are missing" in done.stderr.decode("ascii").splitlines()[-1]
    text = done.stdout.decode("ascii")
    assert "ID-LoRA" in text
    assert " - " in text, "an empty cell"
    assert "—" in (tmp_path / "results/tiny/tables/table1.md").read_text(encoding="utf-8")
