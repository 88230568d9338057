"""The log of items: whole after a kill, honest about what it lost, and closed by a mark that checks."""

import subprocess
import sys
import textwrap

import pytest

from idlora.records import ItemLog, RecordError, is_complete, mark_done, read_items


def record(item="a", sample=0, score=1.0, **extra):
    return {
        "item_id": item,
        "item_hash": "h",
        "prompt_hash": "p",
        "sample": sample,
        "raw": "an answer\nover two lines \u2028 and \ud800",
        "parsed": None,
        "gold": "7",
        "scores": {"strict": score},
    } | extra


@pytest.fixture
def path(tmp_path):
    return tmp_path / "eval" / "gsm8k-x" / "items.jsonl"


def test_what_was_appended_is_read_back_in_order(path):
    log = ItemLog(path)
    log.append([record("b"), record("a")])
    log.append([record("a", 1, outcome="timeout")])
    again = ItemLog(path)
    assert again.records == log.records == [record("b"), record("a"), record("a", 1, outcome="timeout")]
    assert ("a", 1) in again
    assert ("c", 0) not in again
    assert again.get("b")["gold"] == "7"
    assert again.cut is None


def test_memory_and_disk_hold_the_same_values(path):
    log = ItemLog(path)
    log.append([record(parsed=("a", "tuple"))])
    assert log.records == ItemLog(path).records


def test_a_file_cut_at_any_byte_keeps_its_whole_lines_and_takes_new_ones(path):
    log = ItemLog(path)
    log.append([record(str(item)) for item in range(3)])
    data = path.read_bytes()
    ends = [end for end, byte in enumerate(data, start=1) if byte == ord("\n")]
    for size in {*range(0, len(data), 7), *(end + near for end in ends for near in (-2, -1, 0))}:
        path.write_bytes(data[:size])
        cut = ItemLog(path)
        whole = sum(end <= size for end in ends)
        assert len(cut) == whole
        assert path.stat().st_size == ([0, *ends])[whole]
        assert (cut.cut is None) == (size in [0, *ends])
        cut.append([record(str(item)) for item in range(whole, 3)])
        assert path.read_bytes() == data


@pytest.mark.parametrize("damage", [b"\x00\xff\x00\n", b"[1, 2]\n", b'{"item_id": "x"}\n', b"\n"])
def test_from_the_first_corrupt_line_on_everything_is_cut_and_told(path, damage):
    ItemLog(path).append([record("a"), record("b")])
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + damage + second)
    log = ItemLog(path)
    assert [each["item_id"] for each in log] == ["a"]
    assert f"cut {len(damage + second)} bytes (2 line(s)) after record 1" in log.cut
    assert path.read_bytes() == first


def test_a_duplicate_is_refused_and_nothing_of_its_batch_is_written(path):
    log = ItemLog(path)
    log.append([record("a")])
    before = path.read_bytes()
    for batch in ([record("b"), record("a")], [record("c"), record("c")]):
        with pytest.raises(ValueError, match="already in"):
            log.append(batch)
    assert path.read_bytes() == before
    assert len(log) == 1
    log.append([record("a", sample=1)])
    assert len(ItemLog(path)) == 2


def test_a_duplicate_on_disk_is_refused(path):
    ItemLog(path).append([record("a")])
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(RecordError, match="line 2 repeats"):
        ItemLog(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scores": {}}, "at least one"),
        ({"scores": {"strict": 1.5}}, "from 0 to 1"),
        ({"scores": {"strict": float("nan")}}, "from 0 to 1"),
        ({"sample": "0"}, "sample an integer"),
        ({"item_id": 3}, "item_id is text"),
    ],
)
def test_a_record_that_breaks_the_schema_is_refused(path, change, said):
    with pytest.raises(ValueError, match=said):
        ItemLog(path).append([record(**change)])
    assert not path.exists()


def test_a_record_without_its_prompt_hash_is_refused(path):
    short = record()
    del short["prompt_hash"]
    with pytest.raises(ValueError, match="lacks prompt_hash"):
        ItemLog(path).append([short])


def test_the_done_mark_holds_only_for_the_items_that_it_was_written_for(path):
    assert not is_complete(path.parent)
    log = ItemLog(path)
    log.append([record("a")])
    assert not is_complete(path.parent)
    with pytest.raises(RecordError, match="not a finished evaluation"):
        read_items(path.parent)
    mark_done(path.parent)
    assert is_complete(path.parent)
    assert read_items(path.parent) == log.records
    log.append([record("b")])
    assert not is_complete(path.parent)


def test_a_disk_that_fills_up_in_the_middle_of_a_batch_leaves_the_batches_before(path):
    # A real limit on file size in a process of its own: the kernel takes part of the write, then refuses.
    program = f"""
        import resource, sys
        sys.modules["peft"] = None  # records need no torch, and importing it takes seconds
        from idlora.records import ItemLog, RecordError
        record = {record("a")!r}
        log = ItemLog({str(path)!r})
        log.append([record])
        size = log.path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
        try:
            log.append([record | {{"item_id": "b"}}, record | {{"item_id": "c"}}])
        except RecordError as error:
            print(error)
        assert log.path.stat().st_size == size and len(log) == 1
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot write {path}: ")
    assert done.stdout.count("\n") == 1
    assert [each["item_id"] for each in ItemLog(path)] == ["a"]


def test_kill_9_loses_at_most_the_batch_at_work(path):
    program = f"""
        import sys
        sys.modules["peft"] = None  # records need no torch, and importing it takes seconds
        from idlora.records import ItemLog
        record = {record()!r}
        log = ItemLog({str(path)!r})
        for batch in range(10_000):
            log.append([record | {{"item_id": f"{{batch}}/{{item}}"}} for item in range(5)])
            print(batch, flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    for _ in range(20):
        process.stdout.readline()
    process.kill()
    finished = 20 + process.stdout.read().count("\n")
    process.wait()
    kept = len(ItemLog(path))
    assert 5 * finished <= kept <= 5 * (finished + 1)


def test_an_unreadable_file_is_one_sentence(path):
    path.mkdir(parents=True)  # a folder where the file should be
    with pytest.raises(RecordError, match=r"cannot read .*items\.jsonl: Is a directory"):
        ItemLog(path)
