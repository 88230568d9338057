"""What is asked of a hub before anything is downloaded, against a hub in this process."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproduction.cells.from_config import compose_cell
from reproduction.preflight import missing
from reproduction.preflight.hub import DATASET, MODEL, Sources
from reproduction.system.hub import Asked, Unanswered


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub that knows each repository by its owner: fine, gated, gone, old (no such revision), token (refused)."""

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
        self.send_header("ETag", '"abc"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", "0")
        if code:
            self.send_header("X-Error-Code", code)
        if message:
            self.send_header("X-Error-Message", message)
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


def told(monkeypatch: pytest.MonkeyPatch, endpoint: str, *owners: str) -> list[str]:
    """What is said of a model and a data set of each owner, on a machine whose hub is at the endpoint."""
    for name, value in (
        ("ENDPOINT", endpoint),
        ("HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"),
        ("HF_HUB_OFFLINE", False),
    ):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    sources = Sources()
    for owner in owners:
        sources.repositories |= {(MODEL, f"{owner}/model"): "main", (DATASET, f"{owner}/data"): "main"}
    sources.ask()
    return list(sources.lacks())


def test_each_answer_of_a_hub_has_its_own_sentence(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, _ = hub
    lines = told(monkeypatch, endpoint, "fine", "gated", "gone", "old", "token", "broken")
    said = "\n".join(lines)
    assert (
        f"access to the model gated/model: accept its terms at {endpoint}/gated/model and run `hf auth login`" in said
    )
    assert f"accept its terms at {endpoint}/datasets/gated/data" in said
    assert f"the model gone/model: {endpoint} has none, or hides it" in said
    assert "the model old/model: it has no such revision" in said
    assert f"the token: {endpoint} refuses it, asked for token/model, token/data" in said
    assert "the model broken/model:" in said
    assert "fine" not in said
    assert len(lines) == 2 + 2 + 2 + 1 + 2


def test_a_data_set_without_a_card_may_be_read_and_a_model_without_a_config_may_not(hub, monkeypatch) -> None:
    (line,) = told(monkeypatch, hub[0], "bare")
    assert line.startswith("the model bare/model:")


def test_a_host_that_swallows_packets_costs_seconds_however_much_is_asked_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reproduction.system.hub.SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:  # connections are taken and nothing is answered
        endpoint, began = f"http://127.0.0.1:{silent.getsockname()[1]}", time.monotonic()
        (line,) = told(monkeypatch, endpoint, *(f"owner{number}" for number in range(8)))
    assert time.monotonic() - began < 3
    assert f"the hub: {endpoint} does not answer" in line
    assert "owner7/data" in line
    assert "HF_ENDPOINT" in line


def test_questions_that_hang_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproduction.system.hub.SECONDS", 0.3)
    began = time.monotonic()
    answers = Asked({number: lambda: time.sleep(20) for number in range(4)} | {"quick": lambda: None}).answers()
    assert time.monotonic() - began < 1
    assert answers.pop("quick") is None
    assert {type(answer) for answer in answers.values()} == {Unanswered}


def test_the_tiny_scale_asks_no_network(hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    overrides = [f"results_dir={tmp_path}", "train.learning_rate=0.01"]
    tiny = compose_cell("gsm8k_llama3", "lora", scale="tiny", seed=0, overrides=overrides)
    endpoint, asked = hub
    told(monkeypatch, endpoint)
    assert missing([tiny], results_dir=tmp_path) == []
    assert asked == []
