"""Download of data sets from the hub at a given revision."""

import re
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

from reproduction.data.catalogue import DataError, DatasetSpec

_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch_files(spec: DatasetSpec, revision: str) -> Path:
    """Return the folder with `spec.hub_files`, from the hub or its cache. Raises DataError, see `fetch`."""
    try:
        paths = [hf_hub_download(spec.hub_id, file, repo_type="dataset", revision=revision) for file in spec.hub_files]
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise DataError(_refusal(spec, revision, error)) from error
    return Path(paths[0]).parent


def fetch(spec: DatasetSpec, revision: str) -> Any:
    """Return the `datasets.DatasetDict` of a data set at a commit, branch or tag, from the hub or its cache.

    Raises DataError if it is gated, missing or unreachable, or if the hub is unreachable and the cache has another
    commit.
    """
    if spec.url is None and not Path(spec.hub_id).is_absolute() and Path(spec.hub_id).exists():
        raise DataError(
            f"The folder {spec.hub_id} here would be read in place of the hub's data set of that name: run the command "
            "from another folder, or rename it and give data_root."
        )
    from datasets import load_dataset  # takes 0.6 s to import
    from datasets.exceptions import DatasetsError

    try:
        if spec.url is not None:
            return load_dataset("json", data_files=spec.source(revision))
        loaded = load_dataset(spec.hub_id, spec.hub_config, revision=revision)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError, DatasetsError) as error:
        raise DataError(_refusal(spec, revision, error)) from error
    # Offline, `datasets` uses the last cached commit; the cache's folders are named after commits.
    folders = {Path(file["filename"]).parent.name for split in loaded.values() for file in split.cache_files}
    others = {name for name in folders if _COMMIT.fullmatch(name)} - {revision}
    if others and _COMMIT.fullmatch(revision):
        raise DataError(
            f"Data set {spec.name!r} is wanted at commit {revision} of {spec.hub_id}, and without the hub its cache "
            f"gives {others.pop()}: check the network, or set revisions.{spec.name} to that commit."
        )
    return loaded


def cached(spec: DatasetSpec, revision: str) -> bool:
    """Whether the local cache has a data set at a revision; the hub is not contacted.

    For a branch or tag any cached commit counts: `datasets` does not record which branch it was.
    """
    if spec.hub_files:
        found = (
            try_to_load_from_cache(spec.hub_id, file, repo_type="dataset", revision=revision) for file in spec.hub_files
        )
        return all(isinstance(path, str) for path in found)
    if spec.hub_id is None:
        return False
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = spec.hub_id.rpartition("/")
    folder = Path(config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(name)}"
    commit = revision if _COMMIT.fullmatch(revision) else "*"
    return any(folder.glob(f"{spec.hub_config or '*'}/*/{commit}/*.arrow"))


def _refusal(spec: DatasetSpec, revision: str, error: Exception) -> str:
    """Return the error message: reason and remedies."""
    place = spec.source(revision) if spec.url else f"{constants.ENDPOINT}/datasets/{spec.hub_id}"
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    offline = "; HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
    return (
        f"Data set {spec.name!r} could not be loaded from {place} at revision {revision!r} ({type(error).__name__}: "
        f"{reason}{offline}): check the network and revisions.{spec.name}; where it is gated, request access on that "
        f"page and run `hf auth login`; or set data_root to a folder with {spec.home}/ in it."
    )
