"""Parallel commands on one results folder, and killed commands, give the tables of an undisturbed command."""

import random
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from places import METHODS, STEPS, Place, at_work, cut_world, killed

from reproduction.records import ANSWERS, AnswerLog, find_runs

Figures = dict[str, str]

KILLS = 10
EARLY = 0.7
"""Kills happen in this first share of the table's time: a resumed command takes less time."""

SEED = 17


@dataclass(frozen=True)
class Alone:
    """The result of an undisturbed command, and its seconds of start-up and of work."""

    place: Place
    starting: float
    working: float


def undisturbed(folder: Path) -> Alone:
    """Fill the table by one command."""
    place = Place(folder / "undisturbed", cut_world(folder / "world"))
    place.folder.mkdir()
    began = time.monotonic()
    process = place.start(place.table())
    while process.poll() is None and not at_work(process):
        time.sleep(0.02)
    filling = time.monotonic()
    code, printed = process.wait(), (place.folder / "printed").read_text(errors="replace")
    assert code == 0, f"The undisturbed command ended with exit code {code}: {printed[-2000:]}"
    assert len(place.attempts()) == len(METHODS), f"The undisturbed command left the runs {place.attempts()}."
    assert not place.leftovers(), f"The undisturbed command left {place.leftovers()}."
    return Alone(place, filling - began, time.monotonic() - filling)


def together(alone: Alone, folder: Path) -> Figures:
    """Run two commands that fill one table and two that train its cells, all in parallel."""
    place = Place(folder / "together", alone.place.world)
    place.folder.mkdir()
    tables = [place.start(place.table()) for _ in range(2)]
    trainings = [place.start(place.train(method)) for method in METHODS]
    ends = [sorted(process.wait() for process in own) for own in (tables, trainings)]
    printed = (place.folder / "printed").read_text(errors="replace")
    assert ends == [[0, 2], [0, 0]], f"Two tables and two trainings on one folder ended with {ends}: {printed[-2000:]}"
    assert "another command is at work in" in printed, f"The refused command did not say why: {printed[-2000:]}"
    assert_as_alone(place, alone)
    assert set(place.attempts().values()) == {1}, f"A cell was trained more than once: {place.attempts()}."
    again, printed = place.run(place.table())
    assert (again, " cells in " in printed) == (0, False), "The same command once more computed something."
    assert_as_alone(place, alone)
    return {"four commands on one folder": "one refused in a sentence, tables as alone, nothing computed twice"}


def kills(alone: Alone, folder: Path) -> Figures:
    """Kill the command (not its children) `KILLS` times at random moments, and resume it each time."""
    drawn, folders, processes, ends, done = random.Random(SEED), 0, 0, [], 0
    while done < KILLS:
        place = Place(folder / f"killed-{folders}", alone.place.world)
        place.folder.mkdir()
        folders += 1
        finished = False
        while not finished:
            process = place.start(place.table())
            if done < KILLS:
                _wait(process, drawn, alone, starting=done % 5 == 4)
            else:
                process.wait()
            if process.poll() is None:
                started, took = killed(process)
                processes, ends, done = processes + started, [*ends, took], done + 1
            else:
                finished = True
                printed = (place.folder / "printed").read_text(errors="replace")
                assert process.returncode == 0, f"The command that went on ended otherwise than well: {printed[-2000:]}"
        assert_as_alone(place, alone)
        assert not place.leftovers(), f"What was killed left {place.leftovers()}, and the command that went on let it."
    return {
        f"{done} kills of the command alone": f"tables as undisturbed in all {folders} folders, no file left",
        "processes that it had started": f"{processes}, all gone after {max(ends):.2f} s at most",
    }


def _wait(process: Popen, drawn: random.Random, alone: Alone, *, starting: bool) -> None:
    """Wait until a random moment of the command's start or work, or until its end."""
    while not starting and process.poll() is None and not at_work(process):
        time.sleep(0.005)
    longest = alone.starting if starting else EARLY * alone.working
    until = time.monotonic() + drawn.uniform(0, longest)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)


def assert_as_alone(place: Place, alone: Alone) -> None:
    """Assert equal bytes of tables, tests and metrics, and that no step or answer occurs twice."""
    ours, theirs = place.outcome(), alone.place.outcome()
    odd = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    assert not odd, f"{', '.join(odd)} in {place.folder} are others than the undisturbed command's."
    for run in find_runs(place.results / "runs"):
        log = run.folder / "train_log.jsonl"
        assert not log.exists() or len(log.read_text().splitlines()) == STEPS, f"{log} has not {STEPS} steps."
        for answers in run.folder.glob(f"answers/*/{ANSWERS}"):
            AnswerLog(answers)  # raises for duplicates
