"""The hub's data sets at the revisions asked for, read from a hub of one process as `datasets` reads the real one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_hub import Repository, serving

from reproduction.data import DataError
from reproduction.data.hub import fetch
from reproduction.evals.task import load_task
from reproduction.evals.tasks.hexphi import CATEGORIES

OLD, NEW, NEITHER = "a" * 40, "b" * 40, "c" * 40


def questions(count: int) -> dict[str, bytes]:
    lines = [json.dumps({"question": f"What is {n}?", "answer": f"#### {n}"}) + "\n" for n in range(count)]
    return {"README.md": b"# questions\n"} | {f"{split}.jsonl": "".join(lines).encode() for split in ("train", "test")}


def prompts(last: int) -> dict[str, bytes]:
    """HEx-PHI's files with thirty prompts each, and `last` in the last one."""
    counts = dict.fromkeys(CATEGORIES, 30) | {CATEGORIES[-1]: last}
    return {
        f"{category}.csv": "".join(f'"{category}, please: {n}"\n' for n in range(count)).encode()
        for category, count in counts.items()
    }


REPOSITORIES = {
    "openai/gsm8k": Repository({OLD: questions(2), NEW: questions(3)}),
    "LLM-Tuning-Safety/HEx-PHI": Repository({OLD: prompts(30), NEW: prompts(29)}),
    "some/gated": Repository(refused="GatedRepo"),
    "some/gated-files": Repository({OLD: questions(2)}, refused="GatedRepo"),
}

GSM8K, HEXPHI = "openai/gsm8k", "LLM-Tuning-Safety/HEx-PHI"
ONLINE = {
    "old": ("gsm8k", GSM8K, OLD),
    "newest": ("gsm8k", GSM8K, "main"),
    "no revision": ("gsm8k", GSM8K, NEITHER),
    "gated": ("gsm8k", "some/gated", "main"),
    "gated files": ("gsm8k", "some/gated-files", "main"),
    "gated prompts": ("hexphi", "some/gated", OLD),
    "nothing": ("gsm8k", "some/nothing", "main"),
    "prompts": ("hexphi", HEXPHI, OLD),
    "fewer prompts": ("hexphi", HEXPHI, NEW),
}
OFFLINE = {
    "other commit cached": ("gsm8k", GSM8K, OLD),
    "commit cached": ("gsm8k", GSM8K, NEW),
    "any commit cached": ("gsm8k", GSM8K, "main"),
    "prompts cached": ("hexphi", HEXPHI, OLD),
    "nothing cached": ("gsm8k", "some/nothing", "main"),
    "no prompts cached": ("hexphi", "some/nothing", "main"),
    "no file cached": ("saferpaca", None, "main"),
}


@pytest.fixture(scope="module")
def read(repository, tmp_path_factory) -> dict[str, tuple[bool, list | str]]:
    """Of each of these, whether a new process has it already, and its rows or the sentence that refuses it."""
    arguments = [*map(json.dumps, ONLINE.values()), "offline", *map(json.dumps, OFFLINE.values())]
    with serving(REPOSITORIES) as address:
        there = {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
        ended = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("read_hub.py")), *arguments],
            env=os.environ | {"PYTHONPATH": str(repository), "HF_HUB_DISABLE_XET": "1"} | there,
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 0, ended.stderr
    return dict(zip([*ONLINE, *OFFLINE], json.loads(ended.stdout.splitlines()[-1]), strict=True))


@pytest.fixture
def outcomes(read) -> dict[str, list | str]:
    return {case: outcome for case, (_, outcome) in read.items()}


def test_a_revision_is_the_one_that_is_read(outcomes):
    assert (len(outcomes["old"]), len(outcomes["newest"])) == (2, 3)
    assert outcomes["old"][1] == {"id": "train/1", "question": "What is 1?", "answer": "#### 1"}


def test_headerless_files_are_read_from_the_hub_in_full_and_again_from_its_cache(outcomes):
    rows = outcomes["prompts"]
    assert len(rows) == 300
    assert rows[0] == {"id": "category_1/0", "prompt": "category_1, please: 0", "category": "category_1"}
    assert rows[30]["id"] == "category_3/0"
    assert outcomes["prompts cached"] == rows


REFUSED = {  # by what the sentence names
    "no revision": (f"'{NEITHER}'", "revisions.gsm8k"),
    "gated": ("gated", "/datasets/some/gated ", "hf auth login", "data_root"),
    "gated files": ("gated", "/datasets/some/gated-files "),
    "gated prompts": ("'hexphi'", "gated", "hf auth login"),
    "nothing": ("/datasets/some/nothing ", "doesn't exist", "hf auth login"),
    "fewer prompts": (NEW, "299", "300 or 330", "revisions.hexphi"),
    "other commit cached": (OLD, NEW, "revisions.gsm8k"),
    "nothing cached": ("/datasets/some/nothing ", "HF_HUB_OFFLINE", "data_root"),
    "no prompts cached": ("'hexphi'", "HF_HUB_OFFLINE"),
    "no file cached": ("safety-tuned-llamas/main/data/training/", "revisions.saferpaca", "data_root"),
}


def test_what_cannot_be_had_is_one_sentence_with_what_to_ask_for_and_where(outcomes):
    for case, words in REFUSED.items():
        assert all(word in outcomes[case] for word in words), outcomes[case]
        assert "\n" not in outcomes[case]


def test_what_is_here_already_is_known_without_the_hub(read):
    here = {case for case, (cached, _) in read.items() if cached}
    commits = {"newest", "other commit cached", "commit cached", "any commit cached"}
    assert here == commits | {"prompts cached"}
    assert read["commit cached"] == read["any commit cached"]
    assert read["commit cached"][1] == read["newest"][1]


def test_a_folder_of_the_same_name_is_not_read_in_place_of_the_hubs_set(tmp_path, monkeypatch):
    (tmp_path / "openai" / "gsm8k").mkdir(parents=True)
    (tmp_path / "openai" / "gsm8k" / "train.json").write_text('[{"question": "1?", "answer": "#### 1"}]')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"The folder openai/gsm8k here would be read in place"):
        fetch(load_task("gsm8k").data, "main")
