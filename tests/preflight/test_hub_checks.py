"""Access checks before any download, against a hub in this process."""

import dataclasses
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproduction.cells.cell import Cell
from reproduction.cells.resolve_paths import datasets
from reproduction.cells.sizes import kinds_of
from reproduction.data.catalogue import DatasetSpec
from reproduction.evals.task import load_task
from reproduction.preflight import missing
from reproduction.preflight.hub import DATASET, MODEL, Sources
from reproduction.system.hub import model_here


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub that answers by the repository's owner: fine, gated, gone, old (no such revision), token (refused)."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        owner = self.path.removeprefix("/datasets").split("/")[1]
        status, code, message = {
            "gated": (403, "GatedRepo", "ask for access"),
            "gone": (404, "RepoNotFound", "not found"),
            "old": (404, "RevisionNotFound", "no such revision"),
            "token": (401, "", "Invalid credentials in Authorization header"),
            "broken": (500, "", "out of order"),
            "bare": (404, "EntryNotFound", "no such file"),
        }.get(owner, (200, "", ""))
        self.send_response(status)
        headers = {"ETag": '"abc"', "X-Repo-Commit": "0" * 40, "Content-Length": "0"}
        for name, value in (headers | {"X-Error-Code": code, "X-Error-Message": message}).items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    handler = type("Handler", (Hub,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()


def use_hub(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    values = {"ENDPOINT": endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False}
    for name, value in values.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)


def lacks(*owners: str) -> list[str]:
    """Return the lines on a model and a data set of each owner."""
    sources = Sources()
    for owner in owners:
        sources.repositories |= {(MODEL, f"{owner}/model"): "main", (DATASET, f"{owner}/data"): "main"}
    sources.ask()
    return list(sources.lacks())


def test_every_repository_that_the_hub_refuses_is_named_with_the_reason(hub, monkeypatch) -> None:
    use_hub(monkeypatch, hub[0])
    lines = {line.split(f": {hub[0]}")[0].split(":")[0]: line for line in lacks(
        "fine", "gated", "gone", "old", "token", "broken", "bare",
    )}  # fmt: skip
    assert len(lines) == 2 * 5 + 1  # many data sets have no card, and may be read
    assert f"accept its terms at {hub[0]}/gated/model" in lines["access to the model gated/model"]
    assert f"accept its terms at {hub[0]}/datasets/gated/data" in lines["access to the data set gated/data".replace(
        "data set", DATASET)]  # fmt: skip
    for owner, word in (("gone", "404"), ("old", "404"), ("token", "HF_TOKEN"), ("broken", "500"), ("bare", "404")):
        assert word in lines[f"the model {owner}/model at revision main"]


def test_a_host_that_swallows_packets_costs_seconds_however_much_is_asked_of_it(paper, monkeypatch) -> None:
    monkeypatch.setattr("reproduction.system.hub.SECONDS", 1.0)
    kinds_of(paper.values())  # imports torch
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:  # accepts connections and never answers
        endpoint, began = f"http://127.0.0.1:{silent.getsockname()[1]}", time.monotonic()
        use_hub(monkeypatch, endpoint)
        (line,) = lacks(*(f"owner{number}" for number in range(8)))
        assert time.monotonic() - began < 4
        for word in (endpoint, "owner7/data", "HF_ENDPOINT"):
            assert word in line
        unknown = dataclasses.replace(paper["lora"].model, path_or_id="owner/unknown")
        began = time.monotonic()
        kinds = kinds_of([dataclasses.replace(cell, model=unknown) for cell in paper.values()])
        assert time.monotonic() - began < 2.5  # not a second for each
        assert [kind.body for kind in kinds] == [None] * 3


def test_the_tiny_scale_asks_no_network(hub, tiny: Cell, monkeypatch, tmp_path: Path) -> None:
    use_hub(monkeypatch, hub[0])
    assert missing([tiny], results_dir=tmp_path) == []
    assert hub[1] == []


def test_every_data_set_of_a_cell_is_asked_for_those_of_its_benchmarks_too(
    paper: dict[str, Cell], tiny: Cell, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reproduction.preflight.hub.cached", lambda spec, revision: False)
    safety = dataclasses.replace(tiny.protocols[0], benchmark="hexphi", num_fewshot=0, judge="prefix")
    cell = dataclasses.replace(paper["lora"], protocols=(*paper["lora"].protocols, safety), revisions={"mmlu": "abc"})

    def asked(cell: Cell) -> dict[str, str]:
        sources = Sources()
        sources.add_cell(cell)
        return {name: revision for (kind, name), revision in sources.repositories.items() if kind == DATASET}

    trained = {"openai/gsm8k", "sahil2801/CodeAlpaca-20k", "tatsu-lab/alpaca"}
    tested = {"cais/mmlu", "tau/commonsense_qa", "openai/openai_humaneval", "LLM-Tuning-Safety/HEx-PHI"}
    assert asked(cell).keys() == trained | tested
    assert asked(cell)["cais/mmlu"] == "abc"
    held_out = {"openai/gsm8k", "sahil2801/CodeAlpaca-20k"}  # only their loss is measured
    assert asked(dataclasses.replace(cell, method=paper["base"].method)).keys() == tested | held_out
    bare = dataclasses.replace(tiny, data_root=results, protocols=(*tiny.protocols, safety))
    lines = [line for line in missing([bare], results_dir=results) if line.startswith("data set")]
    assert [line.split(":")[0] for line in lines] == ["data set gsm8k", "data set hexphi"]


def test_what_is_in_a_cache_or_comes_with_a_benchmark_is_not_asked_for(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    commit, other = "a" * 40, "b" * 40

    def asked(spec: DatasetSpec, revision: str) -> bool:
        sources = Sources()
        sources.add_data(spec, None, {spec.name: revision})
        return bool(sources.repositories) or bool(sources.local)

    kept = tmp_path / "datasets" / "sahil2801___code_alpaca-20k" / "default" / "0.0.0" / commit
    kept.mkdir(parents=True)
    assert asked(datasets()["codealpaca"], commit)
    (kept / "code_alpaca-20k-train.arrow").touch()
    assert not asked(datasets()["codealpaca"], commit)
    assert asked(datasets()["codealpaca"], other)
    snapshot = tmp_path / "hub" / "datasets--LLM-Tuning-Safety--HEx-PHI" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    assert asked(datasets()["hexphi"], commit)
    for file in load_task("hexphi").data.hub_files:
        (snapshot / file).touch()
    assert not asked(datasets()["hexphi"], commit)
    bundled = DatasetSpec("capitals", ("country",), {"test": "test"}, bundled=lambda: [{"country": "Peru"}])
    assert not asked(bundled, commit)
    assert asked(dataclasses.replace(bundled, bundled=None), commit)
    folder = tmp_path / "hub" / "models--owner--model"
    model = folder / "snapshots" / commit
    model.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    assert not model_here("owner/model", "main")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).touch()
    assert model_here("owner/model", "main")
    assert not model_here("owner/model", other)
