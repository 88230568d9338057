"""The hub's data sets at the revisions asked for, read from a hub of one process as `datasets` reads the real one."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from reproduction.data import DataError
from reproduction.data.hub import fetch
from reproduction.evals.task import load_task
from reproduction.evals.tasks.hexphi import CATEGORIES, WITHDRAWN

OLD, NEW, NEITHER = "a" * 40, "b" * 40, "c" * 40
GSM8K, HEXPHI, GATED, NOTHING = "openai/gsm8k", "LLM-Tuning-Safety/HEx-PHI", "some/gated", "some/nothing"


def questions(count: int) -> dict[str, bytes]:
    lines = [json.dumps({"question": f"What is {n}?", "answer": f"#### {n}"}) + "\n" for n in range(count)]
    return {"README.md": b"# questions\n"} | {f"{split}.jsonl": "".join(lines).encode() for split in ("train", "test")}


def prompts(last: int) -> dict[str, bytes]:
    """HEx-PHI's files with thirty prompts each, and `last` in the last one."""
    counts = dict.fromkeys(CATEGORIES, 30) | {CATEGORIES[-1]: last}
    return {
        f"{name}.csv": "".join(f'"{name}, please: {n}"\n' for n in range(count)).encode()
        for name, count in counts.items()
        if name != WITHDRAWN
    }


HUB = {
    GSM8K: {OLD: questions(2), NEW: questions(3)},
    HEXPHI: {OLD: prompts(30), NEW: prompts(29)},
}
"""Repository → commit, the newest last → the files there."""


class Handler(BaseHTTPRequestHandler):
    """Enough of the hub's HTTP interface to find, refuse and download a data set."""

    def do_GET(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path).strip("/").removeprefix("api/").removeprefix("datasets/")
        owner, name, verb, revision, *inside = [*path.split("/"), "", "", "", ""]
        commits = HUB.get(f"{owner}/{name}", {})
        commit = list(commits)[-1] if commits and revision in ("", "main") else revision
        if f"{owner}/{name}" == GATED:
            self._send(403, error="GatedRepo")
        elif not commits or commit not in commits:
            self._send(404, error="RevisionNotFound" if commits else "RepoNotFound")
        elif verb == "resolve":
            content = commits[commit].get("/".join(filter(None, inside)))
            self._send(
                404 if content is None else 200,
                content or b"",
                error=content is None and "EntryNotFound",
                commit=commit,
            )
        elif verb in ("tree", "paths-info"):
            files = {p: c for p, c in commits[commit].items() if verb == "tree" or p in json.loads(sent)["paths"]}
            entry = {"type": "file"}
            self._json([
                entry | {"path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for p, c in files.items()
            ])  # fmt: skip
        else:
            siblings = [{"rfilename": path} for path in commits[commit]]
            self._json({"id": f"{owner}/{name}", "sha": commit, "siblings": siblings, "private": False, "tags": []})

    do_HEAD = do_POST = do_GET

    def log_message(self, *_) -> None:
        pass

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode())

    def _send(self, status: int, content: bytes = b"", *, error=None, commit=None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if error:
            self.send_header("X-Error-Code", error)
            self.send_header("X-Error-Message", error)
        if commit:
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


PROGRAM = """
    import json, sys
    from dataclasses import replace
    import datasets, huggingface_hub
    from reproduction.cells.resolve_paths import datasets as known
    from reproduction.data import DataError
    from reproduction.data.hub import cached
    from reproduction.data.sources import load_from_hub

    outcomes = []
    for name, repository, revision, offline in json.loads(sys.argv[1]):
        huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = offline
        spec = known()[name]
        if repository is not None:
            spec = replace(spec, hub_id=repository, hub_config=None)
        here = cached(spec, revision)
        try:
            outcomes.append((here, load_from_hub(spec, next(iter(spec.splits)), revision=revision)))
        except DataError as error:
            outcomes.append((here, str(error)))
    print(json.dumps(outcomes))
"""
CASES = {  # data set, repository, revision, whether offline; in this order
    "old": ("gsm8k", GSM8K, OLD, False),
    "newest": ("gsm8k", GSM8K, "main", False),
    "no revision": ("gsm8k", GSM8K, NEITHER, False),
    "gated": ("gsm8k", GATED, "main", False),
    "gated prompts": ("hexphi", GATED, OLD, False),
    "nothing": ("gsm8k", NOTHING, "main", False),
    "prompts": ("hexphi", HEXPHI, OLD, False),
    "fewer prompts": ("hexphi", HEXPHI, NEW, False),
    "other commit cached": ("gsm8k", GSM8K, OLD, True),
    "commit cached": ("gsm8k", GSM8K, NEW, True),
    "any commit cached": ("gsm8k", GSM8K, "main", True),
    "prompts cached": ("hexphi", HEXPHI, OLD, True),
    "nothing cached": ("gsm8k", NOTHING, "main", True),
    "no prompts cached": ("hexphi", NOTHING, "main", True),
    "no file cached": ("saferpaca", None, "main", True),
}


@pytest.fixture(scope="module")
def read(repository, tmp_path_factory) -> dict[str, tuple[bool, list | str]]:
    """Return, for each case, whether a new process has it cached, and its rows or the error message."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there = {"HF_HOME": str(tmp_path_factory.mktemp("home")), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), json.dumps(list(CASES.values()))],
        env=os.environ | {"PYTHONPATH": str(repository), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"} | there,
        capture_output=True,
        text=True,
    )
    server.shutdown()
    assert ended.returncode == 0, ended.stderr
    return dict(zip(CASES, json.loads(ended.stdout.splitlines()[-1]), strict=True))


def test_a_revision_is_the_one_that_is_read_and_headerless_files_in_full(read):
    rows = {case: outcome for case, (_, outcome) in read.items()}
    assert (len(rows["old"]), len(rows["newest"])) == (2, 3)
    assert rows["old"][1] == {"id": "train/1", "question": "What is 1?", "answer": "#### 1"}
    assert rows["commit cached"] == rows["any commit cached"] == rows["newest"]
    assert len(rows["prompts"]) == 300
    assert rows["prompts"][0] == {"id": "category_1/0", "prompt": "category_1, please: 0", "category": "category_1"}
    assert rows["prompts cached"] == rows["prompts"]
    here = {case for case, (cached, _) in read.items() if cached}
    assert here == {"newest", "other commit cached", "commit cached", "any commit cached", "prompts cached"}


REFUSED = {  # by what the sentence names
    "no revision": (f"'{NEITHER}'", "revisions.gsm8k"),
    "gated": ("gated", f"/datasets/{GATED} ", "hf auth login", "data_root"),
    "gated prompts": ("'hexphi'", "gated", "hf auth login"),
    "nothing": (f"/datasets/{NOTHING} ", "doesn't exist", "hf auth login"),
    "fewer prompts": (NEW, "299", "300 or 330", "revisions.hexphi"),
    "other commit cached": (OLD, NEW, "revisions.gsm8k"),
    "nothing cached": (f"/datasets/{NOTHING} ", "HF_HUB_OFFLINE", "data_root"),
    "no prompts cached": ("'hexphi'", "HF_HUB_OFFLINE"),
    "no file cached": ("safety-tuned-llamas/main/data/training/", "revisions.saferpaca", "data_root"),
}


def test_what_cannot_be_had_is_one_sentence_with_what_to_ask_for_and_where(read):
    for case, words in REFUSED.items():
        assert [word for word in words if word not in read[case][1]] == [], read[case][1]
        assert "\n" not in read[case][1]


def test_a_folder_of_the_same_name_is_not_read_in_place_of_the_hubs_set(tmp_path, monkeypatch):
    (tmp_path / "openai" / "gsm8k").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="folder openai/gsm8k here"):
        fetch(load_task("gsm8k").data, "main")
