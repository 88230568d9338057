"""From curves to verdicts, words and files: nothing is decided by hand, and the same settings give the same bytes."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from reproduction.cells.config_schema import ConfigError, typed
from reproduction.theory import Claim, Theory, measure, summary, write
from reproduction.theory.estimates import Point, csv_text, interval
from reproduction.theory.plots import ranks
from reproduction.theory.rank import run as run_rank
from reproduction.theory.report import FAILS, HOLDS, PARTLY, UNDECIDED, decide, holding, holding_markdown, markdown
from reproduction.theory.theorem1 import difference_rank, draw_tasks

EXPERIMENT = "experiments/theory"


def point(mean: float, *, x: float = 0.0, half: float = 0.0, **fields: object) -> Point:
    values = {"study": "s", "setting": "a", "series": "b", "quantity": "q", "x_name": "x", "x": x, "draws": 10}
    return Point(**{**values, "mean": mean, "low": mean - half, "high": mean + half, **fields})


def claim(**fields: object) -> Claim:
    return Claim(**{"name": "n", "study": "s", "source": "Eq. 0", "statement": "It is.", "quantity": "q", **fields})


@pytest.fixture(scope="module")
def settings(repository: Path) -> Theory:
    return typed(Theory, yaml.safe_load((repository / EXPERIMENT / "settings.yaml").read_text()), where="theory")


@pytest.fixture(scope="module")
def claims(repository: Path) -> list[Claim]:
    return [
        typed(Claim, each, where="claim")
        for each in yaml.safe_load((repository / EXPERIMENT / "claims.yaml").read_text())
    ]


@pytest.fixture(scope="module")
def small(settings: Theory) -> Theory:
    """The committed settings with the fewest draws and points that make every curve."""
    return dataclasses.replace(
        settings,
        theorem1=dataclasses.replace(settings.theorem1, draws=2, separations=(0, 2), correlations=(-1, 1)),
        theorem2=dataclasses.replace(settings.theorem2, draws=2, pivot_draws=3, weights=(0.3, 3)),
        rank=dataclasses.replace(settings.rank, draws=2, clusters=(1, 2)),
        rows=dataclasses.replace(settings.rows, bases=settings.rows.bases[:1], null_draws=1),
    )


@pytest.mark.parametrize(
    ("means", "word", "counted"),
    [((1.0, 1.0), HOLDS, (20, 20)), ((0.9, 1.0), PARTLY, (19, 20)), ((0.0, 0.0), FAILS, (0, 20))],
)
def test_a_share_is_counted_in_draws_over_the_whole_curve(means: tuple, word: str, counted: tuple) -> None:
    (found,) = decide([claim()], [point(mean, x=x) for x, mean in enumerate(means)])
    assert (found.verdict, (found.holds, found.of)) == (word, counted)


@pytest.mark.parametrize(
    ("means", "word", "holds"),
    [((2.0, 3.0), HOLDS, 2), ((2.0, 0.5), PARTLY, 1), ((-2.0, 0.5), FAILS, 0), ((0.5, -0.5), UNDECIDED, 0)],
)
def test_an_expectation_is_counted_in_points_whose_interval_leaves_out_zero(
    means: tuple, word: str, holds: int
) -> None:
    (found,) = decide([claim(signed=True)], [point(mean, x=x, half=1.0) for x, mean in enumerate(means)])
    assert (found.verdict, found.holds, found.of) == (word, holds, 2)


def test_settings_and_series_are_decided_apart_and_in_any_order_of_points() -> None:
    curve = [point(1.0, setting="a"), point(0.0, setting="b"), point(1.0, setting="a", x=1.0), point(1.0, series="c")]
    found = decide([claim()], curve)
    assert [(each.setting, each.series, each.verdict, each.of) for each in found] == [
        ("a", "b", HOLDS, 20), ("b", "b", FAILS, 10), ("a", "c", HOLDS, 10),
    ]  # fmt: skip


def test_the_numbers_beside_a_verdict_are_of_its_own_setting() -> None:
    curve = [point(1.0, setting=setting) for setting in "ab"]
    curve += [point(mean, setting=setting, quantity="gap") for setting, mean in (("a", 1.5), ("a", 2.0), ("b", 7.0))]
    curve += [point(0.4, setting="a", quantity="bad"), point(0.9, setting="b", quantity="bad")]
    found = decide([claim(beside=("gap",), totals=("bad",))], curve)
    assert [each.numbers for each in found] == ["gap 1.5 … 2; bad: 4 in all", "gap 7; bad: 9 in all"]


def test_a_claim_that_nothing_measures_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"nothing measures 'other' of 's', which decides 'n'"):
        decide([claim(quantity="other")], [point(1.0)])


def test_words_say_where_a_claim_changes_and_only_there() -> None:
    curve = [point(mean, setting=setting) for setting, mean in (("base", 1.0), ("same", 1.0), ("other", 0.0))]
    the_claim = claim(study="theorem1")
    curve += [point(mean, study="theorem1", setting=s) for s, mean in (("base", 1.0), ("same", 1.0), ("other", 0.0))]
    curve.append(point(1.0, study="theorem1", setting="base", x_name="separation", quantity="clustered_not_worse"))
    verdicts = decide([the_claim], curve)
    assert summary(verdicts) == "*b* holds with base, same; does not hold with other."
    assert summary(verdicts[:2]) == "holds in all 2 settings."
    assert summary(verdicts[2:]) == "does not hold in the one setting."
    curve = [each._replace(series="joint") for each in curve]
    lines = markdown([the_claim], verdicts, curve).splitlines()
    changes = [line for line in lines if line.startswith("- It is., *b*")]
    assert changes == ["- It is., *b*: holds with base (10 of 10), does not hold with other (0 of 10)."]


def test_intervals_are_students_for_numbers_and_wilsons_for_shares() -> None:
    mean, _, high = interval([1.0, 2.0, 3.0])
    assert (mean, high - mean) == (2.0, pytest.approx(4.302653 / np.sqrt(3), rel=1e-6))
    mean, low, high = interval([True] * 10)
    assert (mean, high) == (1.0, pytest.approx(1.0))
    assert low == pytest.approx(0.722, abs=1e-3)
    for bad in ([1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="finite"):
            interval(bad)


def test_numbers_have_six_digits_and_rounding_errors_are_zero() -> None:
    text = csv_text([point(1e-16), point(1 / 3)], Point._fields)
    assert [row["mean"] for row in csv.DictReader(text.splitlines())] == ["0", "0.333333"]


def test_every_claim_gets_a_verdict_and_the_same_settings_the_same_bytes(
    small: Theory, claims: list[Claim], repository: Path, tmp_path: Path
) -> None:
    bases = repository / "reproduction/tinyworld/bases"
    verdicts = write(small, claims, bases=bases, out=tmp_path)
    assert {each.claim for each in verdicts} == {each.name for each in claims}
    words = (tmp_path / "theory.md").read_text()
    assert all(each.statement in words for each in claims)
    measured = measure(small, bases)
    for study, again in measured.items():
        assert (tmp_path / f"{study}.csv").read_text() == csv_text(again, Point._fields), study
    figures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert {"theorem1.png", "theorem1.pdf", "theorem2_1.png", "rank.pdf", "rows.png"} <= set(figures)
    rows = holding(measured["theorem1"])
    assert holding_markdown(rows).strip() in words
    assert len({Path(name).stem for name in figures}) * 2 == len(figures)


def test_the_settings_meet_assumption_1_as_their_readme_says(settings: Theory) -> None:
    for world in settings.theorem1.scenarios.values():
        tasks = draw_tasks(np.random.default_rng(0), world, separation=2.0)
        assert difference_rank(tasks.matrices, tasks.labels) < min(world.rows, world.columns)


def test_the_committed_verdicts_are_about_the_committed_claims(claims: list[Claim], repository: Path) -> None:
    with open(repository / "results/theory/verdicts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["claim"], row["statement"]) for row in rows} == {(each.name, each.statement) for each in claims}


def committed(repository: Path, study: str) -> list[Point]:
    with open(repository / "results/theory" / f"{study}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = {"x": float, "mean": float, "low": float, "high": float, "draws": int}
    return [Point(**row | {name: kind(row[name]) for name, kind in numbers.items()}) for row in rows]


def test_the_committed_table_of_theorem_1_counts_the_draws_of_the_committed_curves(repository: Path) -> None:
    rows, folder = holding(committed(repository, "theorem1")), repository / "results/theory"
    with open(folder / "theorem1_assumptions.csv", newline="") as file:
        assert rows == list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 5
    assert holding_markdown(rows).strip() in (folder / "theory.md").read_text()


def test_settings_that_are_alike_share_a_line_of_the_table_and_the_others_do_not() -> None:
    where = {"study": "theorem1", "series": "joint", "x_name": "separation", "quantity": "clustered_not_worse"}
    curve = [point(mean, setting=setting, **where) for setting, mean in (("a", 1.0), ("b", 1.0), ("c", 0.4))]
    lines = [line for line in holding_markdown(holding(curve)).splitlines() if "joint" in line]
    assert lines == ["| joint | a, b | 10 |", "| joint | c | 4 |"]
    assert "| joint | all | 10 |" in holding_markdown(holding(curve[:2]))


def test_ranks_have_one_panel_for_all_s_that_are_alike(repository: Path) -> None:
    curves = committed(repository, "rank")
    other = [
        each._replace(mean=each.mean / 2) if (each.series, each.quantity) == ("s=2", "update") else each
        for each in curves
    ]
    titles = [[axes.get_title() for axes in ranks(found).axes] for found in (curves, other)]
    assert titles == [["r=8, s=1, s=2, s=4 alike"], ["r=8, s=1, s=4 alike", "r=8, s=2"]]


def test_the_committed_ranks_are_what_the_settings_give(settings: Theory, repository: Path) -> None:
    assert csv_text(run_rank(settings.rank), Point._fields) == (repository / "results/theory/rank.csv").read_text()


def test_a_mistyped_key_of_the_settings_is_named(repository: Path) -> None:
    values = yaml.safe_load((repository / EXPERIMENT / "settings.yaml").read_text())
    values["rank"]["sides"] = 3
    with pytest.raises(ConfigError, match="sides"):
        typed(Theory, values, where="theory")
