"""From curves to verdicts, words and files: nothing is decided by hand, and the same settings give the same bytes."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from reproduction.cells.config_schema import ConfigError, parse_dataclass
from reproduction.theory import Claim, Theory, summary, write
from reproduction.theory.estimates import Point, csv_text, interval
from reproduction.theory.report import FAILS, HOLDS, PARTLY, UNDECIDED, decide, holding, holding_markdown, markdown

EXPERIMENT = "experiments/theory"


def point(mean: float, *, x: float = 0.0, half: float = 0.0, **fields: object) -> Point:
    values = {"study": "s", "setting": "a", "series": "b", "quantity": "q", "x_name": "x", "x": x, "draws": 10}
    return Point(**{**values, "mean": mean, "low": mean - half, "high": mean + half, **fields})


def claim(**fields: object) -> Claim:
    return Claim(**{"name": "n", "study": "s", "source": "Eq. 0", "statement": "It is.", "quantity": "q", **fields})


@pytest.fixture(scope="module")
def settings(repository: Path) -> Theory:
    return parse_dataclass(
        Theory, yaml.safe_load((repository / EXPERIMENT / "settings.yaml").read_text()), where="theory"
    )


@pytest.fixture(scope="module")
def claims(repository: Path) -> list[Claim]:
    return [
        parse_dataclass(Claim, each, where="claim")
        for each in yaml.safe_load((repository / EXPERIMENT / "claims.yaml").read_text())
    ]


@pytest.fixture(scope="module")
def results(settings: Theory, claims: list[Claim], repository: Path, tmp_path_factory: pytest.TempPathFactory):
    """Folders of the new and of the committed results of the committed settings."""
    out = tmp_path_factory.mktemp("theory")
    verdicts = write(settings, claims, bases=repository / "reproduction/tinyworld/bases", out=out)
    assert {each.claim for each in verdicts} == {each.name for each in claims}
    return out, repository / "results/theory"


def differing(results: tuple[Path, Path], name: str, numbers: list[str]) -> int:
    """Return lines of a CSV with different numbers; everything else must be equal."""
    ours, theirs = (pd.read_csv(folder / name, keep_default_na=False) for folder in results)
    pd.testing.assert_frame_equal(ours.drop(columns=numbers), theirs.drop(columns=numbers))
    return (~np.isclose(ours[numbers], theirs[numbers], rtol=1e-4, atol=1e-9)).any(axis=1).sum()


def test_the_committed_results_are_what_the_settings_give(results: tuple[Path, Path]) -> None:
    files = [{str(path.relative_to(folder)) for path in folder.rglob("*.*")} for folder in results]
    assert files[0] == files[1]
    for study in ("theorem1", "theorem2", "rank", "rows"):  # some draws lie on a threshold, by which BLAS differ
        assert differing(results, f"{study}.csv", ["x", "mean", "low", "high", "draws"]) <= 4
    assert (results[0] / "rank.csv").read_bytes() == (results[1] / "rank.csv").read_bytes()
    assert differing(results, "theorem1_assumptions.csv", ["0", "0.25", "0.5", "1", "2", "4", "8"]) <= 4
    texts = [(folder / "theory.md").read_text().splitlines() for folder in results]
    assert len(set(texts[0]) ^ set(texts[1])) <= 20


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


def test_settings_that_are_alike_share_a_line_of_the_table_and_the_others_do_not() -> None:
    where = {"study": "theorem1", "series": "joint", "x_name": "separation", "quantity": "clustered_not_worse"}
    curve = [point(mean, setting=setting, **where) for setting, mean in (("a", 1.0), ("b", 1.0), ("c", 0.4))]
    lines = [line for line in holding_markdown(holding(curve)).splitlines() if "joint" in line]
    assert lines == ["| joint | a, b | 10 |", "| joint | c | 4 |"]
    assert "| joint | all | 10 |" in holding_markdown(holding(curve[:2]))


def test_a_mistyped_key_of_the_settings_is_named(repository: Path) -> None:
    values = yaml.safe_load((repository / EXPERIMENT / "settings.yaml").read_text())
    values["rank"]["sides"] = 3
    with pytest.raises(ConfigError, match="sides"):
        parse_dataclass(Theory, values, where="theory")
