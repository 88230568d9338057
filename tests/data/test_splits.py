"""Cutting rows by the hash of their prompts: who is held out, who is validated on, and what neither depends on."""

import pytest

from reproduction.data.splits import VALIDATION, is_held_out, lowest, place, validation

ROWS = [{"id": f"train/{n}", "question": f"What is {n} + {n}?"} for n in range(400)]


def asked(row: dict) -> tuple[str, str]:
    return row["question"], ""


def test_a_prompt_falls_uniformly_and_always_alike() -> None:
    places = [place(asked(row)) for row in ROWS]
    assert 0 <= min(places) < 0.02
    assert 0.98 < max(places) < 1
    assert sum(places) / len(places) == pytest.approx(0.5, abs=0.05)
    assert place(("Name three.", "")) == 0.4631228592667207  # on every machine, whatever the version of this code
    assert place(("a", "b")) != place(("ab", ""))


def test_a_larger_share_holds_out_the_same_rows_and_more() -> None:
    held = {share: {row["id"] for row in ROWS if is_held_out(asked(row), share)} for share in (0.0, 0.05, 0.2)}
    assert held[0.0] == set() < held[0.05] < held[0.2]
    assert len(held[0.2]) == pytest.approx(80, abs=25)


def test_the_lowest_are_farthest_from_those_held_out_and_keep_their_order() -> None:
    half = lowest(ROWS, 200, asked)
    assert half == [row for row in ROWS if row in half]
    assert max(place(asked(row)) for row in half) < min(place(asked(row)) for row in ROWS if row not in half)
    assert {row["id"] for row in lowest(ROWS[::-1], 200, asked)} == {row["id"] for row in half}


def test_a_validation_slice_is_disjoint_complete_spread_and_independent_of_the_order() -> None:
    rest, apart = validation(ROWS, 40, asked)
    assert len(apart) == 40
    assert sorted(map(str, rest + apart)) == sorted(map(str, ROWS))
    assert apart not in (ROWS[:40], ROWS[-40:])
    assert validation(ROWS[::-1], 40, asked)[1] == apart[::-1]
    assert validation(ROWS, 0, asked) == (ROWS, [])
    with pytest.raises(ValueError, match="Cannot set 400 of 400"):
        validation(ROWS, 400, asked)


def test_rows_that_ask_the_same_stay_together_on_one_side() -> None:
    twice = [*ROWS, *(row | {"id": f"again/{row['id']}"} for row in ROWS)]
    rest, apart = validation(twice, 41, asked)
    assert not set(map(asked, rest)) & set(map(asked, apart))
    held = [row for row in twice if is_held_out(asked(row), 0.1)]
    assert len(held) == 2 * len(set(map(asked, held)))
    with pytest.raises(ValueError, match="leaves none: too many of them ask the same"):
        validation([ROWS[0]] * 5, 2, asked)


def test_the_two_slices_know_nothing_of_each_other() -> None:
    both = [row for row in ROWS if is_held_out(asked(row), 0.5) and place(asked(row), VALIDATION) >= 0.5]
    assert len(both) == pytest.approx(100, abs=30)
