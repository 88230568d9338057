"""Progress of running cells: a live display on a terminal, a line every few seconds in a log."""

import io
import sys
from types import SimpleNamespace

import pytest

from reproduction.running import progress
from reproduction.running.progress import TRAINING, ForwardedProgress, LineProgress, LiveProgress, NullProgress, display


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    return now


def test_a_log_has_a_line_every_few_seconds_from_the_cell_that_moves_and_one_for_each_finished_cell(clock, capsys):
    lines = LineProgress(total=3, done=1)
    for slot in (0, 1):
        lines.cell(f"cell{slot}", slot=slot)
    for step in range(1, 21):
        clock.seconds += 1
        lines.step(TRAINING, step, 100, note=f"loss {step / 10:.2f}", slot=step % 2)
    lines.step(TRAINING, 100, 100, note="loss 0.07", slot=1)
    lines.finished("cell1", "20 s")
    for step in range(7):
        clock.seconds += 2
        lines.step("gsm8k 0shot", 10 * (step + 1), 100, slot=0)
    lines.finished("cell0")
    assert capsys.readouterr().out.splitlines() == [
        "cell1: training 5/100, loss 0.50, 1 s/step, 1:35 left",
        "cell0: training 10/100, loss 1.00, 1 s/step, 1:30 left",
        "cell1: training 15/100, loss 1.50, 1 s/step, 1:25 left",
        "cell0: training 20/100, loss 2.00, 1 s/step, 1:20 left",
        "[2/3] cell1: 20 s, loss 0.07, about 0:20 left for all",
        "cell0: gsm8k 0shot 30/100, 0.2 s each, 0:14 left",
        "cell0: gsm8k 0shot 60/100, 0.2 s each, 0:08 left",
        "[3/3] cell0: 34 s, loss 2.00",
    ]


def test_a_line_has_no_control_characters_and_is_written_at_once(clock, monkeypatch):
    written: list[str] = []
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=written.append, flush=lambda: written.append("flushed")))
    lines = LineProgress(total=1, done=0)
    clock.seconds = 3600
    lines.step(TRAINING, 1, 9)
    assert written == ["training 1/9", "\n", "flushed"]


@pytest.mark.parametrize(
    ("out", "err", "kind"),
    [
        (True, True, LiveProgress),
        (False, True, LineProgress),
        (True, False, LineProgress),
        (False, False, LineProgress),
    ],
)
def test_a_display_is_live_on_a_terminal_alone(out, err, kind, monkeypatch):
    for name, is_terminal in (("stdout", out), ("stderr", err)):
        stream = io.StringIO()
        stream.isatty = lambda is_terminal=is_terminal: is_terminal
        monkeypatch.setattr(sys, name, stream)
    assert type(display(1)) is kind
    assert type(display(1, shown=False)) is NullProgress


def test_a_worker_forwards_some_steps_and_the_last_of_each_phase(clock):
    sent: list[tuple] = []
    worker = ForwardedProgress(lambda *step: sent.append(step[:3]))
    clock.seconds = 1
    for step in range(1, 8):
        worker.step(TRAINING, step, 7)
        clock.seconds += 0.15
    assert sent == [(TRAINING, step, 7) for step in (1, 3, 5, 7)]
