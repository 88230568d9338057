"""Answers survive a kill and are refused if changed; a DONE mark with a checksum completes the scores."""

import subprocess
import sys
import textwrap

import pytest

from reproduction.records import AnswerLog, RecordError, is_complete, read_items, write_items


def answer(item="a", sample=0, **extra):
    return {"item_id": item, "prompt_hash": "p", "sample": sample} | {"raw": "two\nlines \u2028 and \ud800 é"} | extra


def record(item="a", sample=0, score=1.0, **extra):
    return answer(item, sample) | {"item_hash": "h", "parsed": None, "gold": "7", "scores": {"strict": score}} | extra


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gsm8k-x" / "answers.jsonl"


def test_what_was_appended_is_read_back_in_order(path):
    log = AnswerLog(path)
    log.append([])
    assert not path.exists()
    log.append([answer("b"), answer("a")])
    log.append([answer("a", 1, logprobs=(-0.1, -2.5e-7)), answer("a", prompt_hash="q")])
    again = AnswerLog(path)
    assert list(again) == list(log)  # tuples become lists in both
    assert list(again)[:2] == [answer("b"), answer("a")]
    assert len(again) == 4
    assert again.get(("a", "p", 1))["logprobs"] == [-0.1, -2.5e-7]
    assert ("a", "q", 0) in again
    assert ("b", "q", 0) not in again
    assert again.get(("b", "q", 0)) is None


def test_a_file_cut_at_any_byte_keeps_its_whole_lines_tells_it_and_takes_new_ones(path, caplog):
    AnswerLog(path).append([answer(str(item)) for item in range(3)])
    data = path.read_bytes()
    ends = [end for end, byte in enumerate(data, start=1) if byte == ord("\n")]
    for size in {*range(0, len(data), 20), *(end + near for end in ends for near in (-2, -1, 0))}:
        path.write_bytes(data[:size])
        caplog.clear()
        cut = AnswerLog(path)
        whole = sum(end <= size for end in ends)
        assert len(cut) == whole
        assert path.stat().st_size == ([0, *ends])[whole]
        assert bool(caplog.messages) == (size > path.stat().st_size)
        cut.append([answer(str(item)) for item in range(whole, 3)])
        assert path.read_bytes() == data


def test_a_bit_that_is_another_anywhere_in_the_file_is_refused(path):
    AnswerLog(path).append([answer("a"), answer("b")])
    whole = path.read_bytes()
    for at in range(0, len(whole) - 1, 3):  # a last line without its newline is incomplete
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(RecordError, match=r"line [12] of .* is damaged"):
            AnswerLog(path)


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (2, lambda lines: [lines[0], lines[1][:30] + lines[1][60:], lines[2]]),
        (1, lambda lines: [lines[0][:-1], lines[1], lines[2]]),
        (3, lambda lines: [lines[0], lines[1], lines[1], lines[2]]),
        (2, lambda lines: [lines[0], b"\x00\xff\x00\n", *lines[1:]]),
        (2, lambda lines: [lines[0], b"[1, 2]\n", *lines[1:]]),
        (1, lambda lines: [b'{"item_id": "x", "prompt_hash": "p", "sample": 0}\n', *lines]),
    ],
    ids=["a part is gone", "joined lines", "a line twice", "not UTF-8", "no object", "no checksum"],
)
def test_any_other_damage_is_refused_with_its_line_and_nothing_is_lost(path, number, change):
    AnswerLog(path).append([answer("a"), answer("b"), answer("c")])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(damaged := b"".join(change(lines)))
    with pytest.raises(RecordError, match=rf"^line {number} of {path}"):
        AnswerLog(path)
    assert path.read_bytes() == damaged
    path.write_bytes(lines[0] + lines[2])  # the remedy: remove the line, and generate the answer again
    AnswerLog(path).append([answer("b")])
    assert path.read_bytes() == lines[0] + lines[2] + lines[1]


def test_an_answer_that_is_there_or_has_no_key_is_refused_and_nothing_of_its_batch_is_written(path):
    log = AnswerLog(path)
    log.append([answer("a")])
    before = path.read_bytes()
    for batch, offending in (
        ([answer("b"), answer("a")], "'a'"),
        ([answer("c"), answer("c")], "'c'"),
        ([answer("b"), {"item_id": "c", "sample": 0}], "prompt_hash"),
        ([answer("b"), answer("c", logprobs=[float("nan")])], "not JSON compliant"),
    ):
        with pytest.raises(ValueError, match=offending):
            log.append(batch)
    assert path.read_bytes() == before
    assert list(log) == [answer("a")]


def in_another_process(program: str) -> subprocess.Popen:
    start = 'import sys\nsys.modules["peft"] = None  # records need no torch, and importing it takes seconds\n'
    return subprocess.Popen([sys.executable, "-c", start + textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)


def test_a_disk_that_fills_up_in_the_middle_of_a_batch_leaves_the_batches_before(path):
    # A real limit on file size, in a separate process: the kernel accepts part of the write, then refuses.
    process = in_another_process(f"""
        import resource
        from reproduction.records import AnswerLog, RecordError
        answer = {answer()!r}
        log = AnswerLog({str(path)!r})
        log.append([answer])
        size = log.path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
        try:
            log.append([answer | {{"item_id": "b"}}, answer | {{"item_id": "c"}}])
        except RecordError as error:
            print(error)
        assert log.path.stat().st_size == size and len(log) == 1
    """)
    printed, _ = process.communicate()
    assert process.returncode == 0
    assert printed.startswith(f"cannot write {path}: ")
    assert list(AnswerLog(path)) == [answer()]


def test_kill_9_loses_at_most_the_batch_at_work(path):
    process = in_another_process(f"""
        from reproduction.records import AnswerLog
        answer = {answer()!r}
        log = AnswerLog({str(path)!r})
        for batch in range(10_000):
            log.append([answer | {{"item_id": f"{{batch}}/{{item}}"}} for item in range(5)])
            print(batch, flush=True)
    """)
    for _ in range(20):
        process.stdout.readline()
    process.kill()
    finished = 20 + process.stdout.read().count("\n")
    process.wait()
    assert 5 * finished <= len(AnswerLog(path)) <= 5 * (finished + 1)


def test_scores_are_read_back_in_order_and_replace_older_ones(tmp_path):
    assert not is_complete(tmp_path)
    first, second = [record("b"), record("a"), record("a", 1, outcome="timeout")], [record("c", score=0)]
    for records in (first, second):
        write_items(tmp_path, records)
        assert is_complete(tmp_path)
        assert read_items(tmp_path) == records


@pytest.mark.parametrize(
    ("change", "offending"),
    [
        ({"scores": {}}, "at least one"),
        ({"scores": {"strict": 1.5}}, "strict = 1.5"),
        ({"scores": {"strict": float("nan")}}, "strict = nan"),
        ({"scores": {"loss": -1}, "weights": {"loss": 3}}, "loss = -1"),
        ({"scores": {"loss": 7}, "weights": {"loss": 0}}, "loss with 0"),
        ({"sample": "0"}, "sample an integer"),
        ({"item_id": 3}, "3"),
        ({"item_id": "first"}, "'first' sample 0"),
        ({"prompt_hash": ...}, "prompt_hash"),
    ],
)
def test_a_record_that_breaks_the_schema_is_refused_and_older_scores_stay(tmp_path, change, offending):
    older = [record("older"), record("loss", scores={"loss": 7}, weights={"loss": 3})]
    write_items(tmp_path, older)
    broken = {key: value for key, value in (record() | change).items() if value is not ...}
    with pytest.raises(ValueError, match=offending):
        write_items(tmp_path, [record("first"), broken])
    assert read_items(tmp_path) == older


def test_the_done_mark_holds_only_for_the_items_that_it_was_written_for(tmp_path):
    write_items(tmp_path, [record("a")])
    mark, items = tmp_path / "DONE", tmp_path / "items.jsonl"
    whole = items.read_bytes()
    items.write_bytes(whole.replace(b"1.0", b"0.0"))
    assert not is_complete(tmp_path)
    with pytest.raises(RecordError, match=r"items\.jsonl is not a finished evaluation"):
        read_items(tmp_path)
    items.write_bytes(whole)
    assert is_complete(tmp_path)
    mark.unlink()
    assert not is_complete(tmp_path)
    items.unlink()
    items.mkdir()
    with pytest.raises(RecordError, match=r"cannot write .*items\.jsonl"):
        write_items(tmp_path, [record("a")])
    assert not mark.exists()
