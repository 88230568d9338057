"""Parallel requests to the hub and other hosts within a time limit, and checks of the hub's cache for a model."""

import functools
import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub

SECONDS = 10.0
"""Time limit for all requests together."""

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


class Unanswered(Exception):
    """A request was not answered in time."""


class Requests:
    """Requests that run in parallel threads; a request succeeds if it returns."""

    def __init__(self, requests: Mapping[Any, Callable[[], None]]):
        self._deadline = time.monotonic() + SECONDS
        self._answers: dict[Any, Exception | None] = {}
        self._threads = {
            # Daemon threads: a host that drops packets must not keep the process alive.
            key: threading.Thread(target=self._run, args=(key, request), daemon=True)
            for key, request in requests.items()
        }
        for thread in self._threads.values():
            thread.start()

    def _run(self, key: Any, request: Callable[[], None]) -> None:
        try:
            request()
            self._answers[key] = None
        except Exception as error:
            self._answers[key] = error

    def answers(self) -> dict[Any, Exception | None]:
        """Return each request's exception, None if it returned, `Unanswered` if it did neither in time."""
        for thread in self._threads.values():
            thread.join(max(0.0, self._deadline - time.monotonic()))
        return {key: self._answers.get(key, Unanswered(f"no answer in {SECONDS:.0f} s")) for key in self._threads}


def model_here(name: str, revision: str | None) -> bool:
    """Return whether the hub's cache holds a model at a revision, with all of its weights."""
    try:
        folder = huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        return False
    return folder_lacks(Path(folder), weights=True) is None


@functools.cache
def config_folder(name: str, revision: str | None) -> Path | None:
    """Return the folder of a model's config.json: local, in the hub's cache, or fetched into it within `SECONDS`.

    Return None if it cannot be fetched. The result is cached, since an unreachable hub takes `SECONDS` each time.
    """
    if Path(name).is_dir():
        return Path(name)
    found: list[str] = []

    def fetch() -> None:
        cached = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision)
        found.append(
            cached
            if isinstance(cached, str)
            else huggingface_hub.hf_hub_download(name, "config.json", revision=revision)
        )

    return Path(found[0]).parent if Requests({name: fetch}).answers()[name] is None else None


def folder_lacks(folder: Path, *, weights: bool) -> str | None:
    """Name what a model's folder lacks: its config, its tokenizer, or a file of its weights. None if complete."""
    if weights and not (folder / "config.json").is_file():
        return "it has no config.json"
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return f"it has no tokenizer ({' or '.join(TOKENIZERS)})"
    if not weights:
        return None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        absent = [name for name in names if not (folder / name).is_file()]
        return f"it lacks {len(absent)} of its {len(names)} files of weights, such as {absent[0]}" if absent else None
    return None if any(folder.glob("*.safetensors")) else "it has no .safetensors file"
