"""Access checks, all in parallel, for models and data sets that are neither in a folder nor in a cache.

`HF_ENDPOINT` names a mirror of the hub; `HF_TOKEN` or `hf auth login` sets the account.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError

from reproduction.cells.cell import Cell
from reproduction.cells.resolve_paths import data_digest
from reproduction.data.catalogue import DatasetSpec, revision_of
from reproduction.data.hub import cached
from reproduction.system import hub
from reproduction.system.hub import Requests, Unanswered, folder_lacks, model_here

MODEL, DATASET = "model", "dataset"


@dataclass
class Sources:
    """Models and data sets that cells need: `add_…` collects them, `ask` starts the requests, `lacks` reports."""

    repositories: dict[tuple[str, str], str] = field(default_factory=dict)  # (kind, id) → revision
    urls: dict[str, DatasetSpec] = field(default_factory=dict)  # address → data set
    local: dict[str, None] = field(default_factory=dict)  # missing in folders, each once
    _asked: Requests | None = None

    def add_cell(self, cell: Cell) -> None:
        """Add the cell's base and all its training and evaluation data."""
        model = cell.model
        if model.init == "pretrained" or model.shape is None:
            self._add_model(model.path_or_id, model.revision, weights=model.init == "pretrained")
        if model.tokenizer is not None:
            self._add_model(model.tokenizer, None, weights=False)
        for spec in cell.datasets:
            self.add_data(spec, cell.data_root, cell.revisions)

    def add_data(self, spec: DatasetSpec, root: Path | None, revisions: Mapping[str, str]) -> None:
        """Add a data set."""
        name, revision = spec.name, revision_of(spec.name, revisions)
        if root is not None:
            if data_digest(spec, root) == "absent":
                self.local[f"data set {name}: {root / spec.home} is not there"] = None
        elif spec.url is not None:  # needed even if cached: `datasets` checks the address at each load
            self.urls[str(spec.source(revision))] = spec
        elif spec.hub_id is None:
            if spec.bundled is None:
                self.local[f"data set {name}: it is on no hub; put it under data.root=<folder>"] = None
        elif not cached(spec, revision):
            self.repositories[DATASET, spec.hub_id] = revision

    def _add_model(self, where: str, revision: str | None, *, weights: bool) -> None:
        if Path(where).is_dir():
            if lack := folder_lacks(Path(where), weights=weights):
                self.local[f"model folder {where}: {lack}"] = None
        elif not model_here(where, revision):
            self.repositories[MODEL, where] = revision or "main"

    def ask(self) -> None:
        """Start all requests without waiting for the answers."""
        questions: dict[Any, Callable[[], None]] = {url: lambda url=url: _head(url) for url in self.urls}
        if self.repositories and not constants.HF_HUB_OFFLINE:
            questions[constants.ENDPOINT] = lambda: _head(constants.ENDPOINT)
            for (kind, name), revision in self.repositories.items():
                questions[kind, name] = lambda kind=kind, name=name, revision=revision: _access(kind, name, revision)
        self._asked = Requests(questions)

    def lacks(self) -> Iterable[str]:
        """Wait for the answers, and yield a line for each source that cannot be accessed."""
        yield from self.local
        answers = self._asked.answers() if self._asked else {}
        for url, spec in self.urls.items():
            if answers[url] is not None:
                yield (
                    f"data set {spec.name}: {url} does not answer ({_reason(answers[url])}); put the file into "
                    f"<folder>/{spec.home} and give data.root=<folder>"
                )
        if not self.repositories:
            return
        names = ", ".join(name for _, name in self.repositories)
        instead = "name local folders (data.root=…, model.path_or_id=…)"
        if constants.HF_HUB_OFFLINE:
            cache = constants.HF_HUB_CACHE
            yield f"the hub: HF_HUB_OFFLINE is set, and the cache {cache} lacks {names}; unset it, or {instead}"
        elif isinstance(silence := answers[constants.ENDPOINT], _UNREACHABLE):
            yield (
                f"the hub: {constants.ENDPOINT} does not answer ({_reason(silence)}), and is needed for "
                f"{names}; check the network, name a mirror (HF_ENDPOINT=https://…), or {instead}"
            )
        else:
            for (kind, name), revision in self.repositories.items():
                if (error := answers[kind, name]) is not None:
                    yield _refused(kind, name, revision, error=error)


_UNREACHABLE = (Unanswered, OSError, httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol)
"""Errors without any response; a server that answers with an error status is reachable."""


def _access(kind: str, name: str, revision: str) -> None:
    """Raise the hub's error if the repository cannot be read at the revision."""
    if constants.ENDPOINT == "https://huggingface.co":  # a mirror does not check access
        huggingface_hub.HfApi().auth_check(name, repo_type=kind)
    file = "config.json" if kind == MODEL else "README.md"
    url = huggingface_hub.hf_hub_url(name, file, repo_type=kind, revision=revision)
    with contextlib.suppress(*[EntryNotFoundError] if kind == DATASET else []):  # many data sets have no card
        huggingface_hub.get_hf_file_metadata(url, timeout=hub.SECONDS)


def _head(url: str) -> None:
    answer = httpx.head(url, timeout=hub.SECONDS, follow_redirects=True)
    if answer.status_code >= 400:
        raise httpx.HTTPError(f"status {answer.status_code}")


def _refused(kind: str, name: str, revision: str, *, error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{'datasets/' if kind == DATASET else ''}{name}"
        return f"access to the {kind} {name}: accept its terms at {page} and run `hf auth login` (or set HF_TOKEN)"
    status = getattr(getattr(error, "response", None), "status_code", None)
    advice = "; mend HF_TOKEN, or run `hf auth login` with a valid token" if status == 401 else ""
    return f"the {kind} {name} at revision {revision}: {constants.ENDPOINT} says {_reason(error)}{advice}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
