"""Locations of a scale's models and data (the tiny world, a local folder, the hub), and digests of their contents."""

import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reproduction import tinyworld
from reproduction.cells.config_schema import ConfigError
from reproduction.data.catalogue import DATASETS, DatasetSpec, revision_of
from reproduction.data.sources import files_in_folder
from reproduction.evals.task import load_task
from reproduction.evals.task import names as task_names
from reproduction.records import digest
from reproduction.records.files import checksum, read_json
from reproduction.training.gguf_file import ORIGIN, dequantised, dequantised_before

TINYWORLD = "tinyworld/"
"""Prefix of the ``path_or_id`` of a base shipped with the package."""

GGUF = ".gguf"
"""Suffix of the ``path_or_id`` of a file to de-quantise; "gguf" alone is the config's own file, from the cache."""


def locate_model(model: dict[str, Any]) -> dict[str, Any]:
    """Return the model config with ``path_or_id`` resolved and ``checksum`` the SHA-256 of local weights.

    path_or_id          becomes
    tinyworld/<name>    the base's folder in the package, checked against its recipe
    a local folder      unchanged; it must contain a config.json
    <file>.gguf         the folder that it is de-quantised into; the checksum is the file's, the label states the bits
    gguf                the same for the file that the config's ``gguf`` names, which `make model` downloads
    a hub id            unchanged; its revision identifies its bytes

    The label of local weights other than the config's own contains their path. Random weights of a hub model's shape
    use the tiny world's tokenizer unless ``tokenizer`` names another. Only random weights keep ``shape``.

    Raises `ConfigError` for an unknown base or a path that is no model, CorruptBaseError for a damaged base,
    UnfitBase for a file that cannot be de-quantised.
    """
    where = str(model["path_or_id"])
    if where.startswith(TINYWORLD):
        name = where.removeprefix(TINYWORLD)
        if name not in tinyworld.BASES:
            known = ", ".join(TINYWORLD + base for base in tinyworld.BASES)
            raise ConfigError(f"model.path_or_id={where} is no base of the tiny world; they are {known}")
        return model | {"path_or_id": str(tinyworld.base_path(name)), "checksum": _verified(name), "shape": None}
    if where == GGUF[1:]:
        return locate_model(model | {"path_or_id": str(_own_gguf(model))})
    if where.endswith(GGUF) or where.startswith(("/", ".", "~")):
        found = _in_folder(_folder(where), model)
        label = _labelled(model, found, place=Path(where).expanduser().absolute().name)
        return model | found | {"label": label, "shape": None}
    if Path(where).exists():
        raise ConfigError(f"model.path_or_id={where} is a hub id and a folder here: write ./{where} for the folder")
    if model["init"] != "random":
        return model | {"checksum": None, "shape": None}
    tokenizer = model.get("tokenizer") or embedded_tokenizer()
    return model | {"checksum": None, "shape": model.get("shape"), "tokenizer": tokenizer}


def _own_gguf(model: Mapping[str, Any]) -> Path:
    if not (own := model.get("gguf")):
        raise ConfigError(f"model.path_or_id=gguf, and model {model['name']} names no file of its own: give a path")
    if (folder := dequantised_before(own["sha256"])) is None:
        raise ConfigError(f"the GGUF file of {model['name']} is not in the cache: `make model` puts it there")
    return folder


def _folder(where: str) -> Path:
    path = Path(where).expanduser()
    if where.endswith(GGUF):
        if not path.is_file():
            raise ConfigError(
                f"model.path_or_id={where} is no file: give a GGUF file, or model.path_or_id=gguf after `make model`"
            )
        return dequantised(path)
    if not (path / "config.json").is_file():
        raise ConfigError(f"model.path_or_id={where} is no model folder: it has no config.json")
    return path


def _in_folder(folder: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a model's config that its folder determines: its path and checksum."""
    found = {"path_or_id": str(folder)}
    if model["init"] == "random":  # random weights follow from the shape
        return found | {"checksum": _digest_of([folder / "config.json"], folder)}
    from reproduction.training import base_checksum  # torch: only a local folder needs it

    origin = folder / ORIGIN
    return found | {"checksum": read_json(origin)["sha256"] if origin.is_file() else base_checksum(folder)}


def _labelled(model: Mapping[str, Any], found: Mapping[str, Any], *, place: str) -> str:
    """Return a local model's label, with its path if its weights are known to differ from the config's own: those of
    the tiny world, or of the GGUF file that the config names.
    """
    label, origin = str(model["label"]), Path(found["path_or_id"]) / ORIGIN
    if model["init"] == "random":
        return label
    bits = read_json(origin)["bits"] if origin.is_file() else None
    note = f" (de-quantised from {bits} bits)" if bits else ""
    label = label.removesuffix(note)
    own = _verified(model["name"]) if model["name"] in tinyworld.BASES else (model.get("gguf") or {}).get("sha256")
    if own not in (None, found["checksum"]):
        label += f" (from {place})"
    return label + note


def embedded_tokenizer() -> str:
    """Return the folder of the tokenizer used with random weights."""
    return str(tinyworld.base_path("pebble"))


def relocate_model(model: dict[str, Any]) -> dict[str, Any]:
    """Update the paths of a finished run's model config: a base of the tiny world moves with the package, a
    de-quantised one with the cache.

    Raises `ConfigError` if the weights there are not those that the run was trained on.
    """
    place = str(model["path_or_id"])
    if model["name"] in tinyworld.BASES and model["checksum"] == _verified(model["name"]):
        place = TINYWORLD + model["name"]
    elif folder := dequantised_before(model["checksum"]):
        place = str(folder)
    elif Path(place).name == model["checksum"]:
        raise ConfigError(
            f"the GGUF file of the base model {model['name']} (SHA-256 {place[-64:-52]}…) is no longer de-quantised in "
            "the cache: name it to any command, model.path_or_id=<file>.gguf, and it is again"
        )
    found = locate_model(model | {"path_or_id": place}) | {"label": model["label"]}
    if found["checksum"] != model["checksum"]:
        raise ConfigError(
            f"the base model {model['name']} at {found['path_or_id']} is not the one that the run was trained on "
            f"(checksum {str(found['checksum'])[:12]}, the run's {str(model['checksum'])[:12]}): train the run again"
        )
    return found


def locate_data(root: str | None, *, scale: str, results_dir: str | Path) -> Path | None:
    """Return the data folder: ``root`` if given; else the exported tiny world at scale tiny; else None, the hub.

    Raises `ConfigError` if ``root`` is no folder.
    """
    if root is not None:
        if not Path(root).is_dir():
            raise ConfigError(f"data_root={root} is no folder; reproduction/data/sources.py says what it must hold")
        return Path(root).resolve()
    return _exported(Path(results_dir) / scale / "data") if scale == "tiny" else None


def locate_revisions(revisions: Mapping[str, Any], *, own: Iterable[DatasetSpec] = ()) -> dict[str, str]:
    """Return the config's non-empty revisions of hub data sets; ``own`` are a user's data sets.

    Raises `ConfigError` for a name that no hub data set has, or a revision that is no text.
    """
    everything = datasets() | {spec.name: spec for spec in own}
    known = [name for name, spec in everything.items() if spec.source("main")]
    for name, revision in revisions.items():
        if name not in known:
            raise ConfigError(f"revisions.{name} is of no data set of the hub; they are {', '.join(known)}")
        if not isinstance(revision, str | None):
            raise ConfigError(f"revisions.{name}={revision} is a number: put the commit in quotes")
    return {name: revision for name, revision in revisions.items() if revision}


def datasets() -> dict[str, DatasetSpec]:
    """Return all data sets of the project by name: training sets and benchmarks."""
    specs = (load_task(name).data for name in task_names())
    return DATASETS | {spec.name: spec for spec in specs if spec is not None}


def data_digest(data: DatasetSpec | str, root: Path | None, *, revisions: Mapping[str, str] | None = None) -> str:
    """Return a digest of a data set's content: a hash of its files or rows, or its hub id and revision.

    A data set that cannot be found has the digest "absent". Raises `ConfigError` for an unknown training set.
    """
    if isinstance(data, str) and data not in DATASETS:
        raise ConfigError(f"there is no data set {data} to train on; they are {', '.join(DATASETS)}")
    spec = DATASETS[data] if isinstance(data, str) else data
    if root is None:
        revision = revision_of(spec.name, revisions)
        if source := spec.source(revision):
            return f"{source}@{revision}"
    elif files := files_in_folder(spec, root):
        return _digest_of(files, root)
    return "absent" if spec.bundled is None else digest({"rows": spec.bundled()}, 64)


def present(data: DatasetSpec, root: Path | None, *, revisions: Mapping[str, str] | None = None) -> bool:
    """Return whether a data set is available: in the folder, ungated on the hub, or gated and in the hub's cache."""
    if root is None and data.gated:
        from reproduction.data.hub import cached  # the hub's client: commands that only read need not import it

        return cached(data, revision_of(data.name, revisions))
    return data_digest(data, root, revisions=revisions) != "absent"


def folder_digest(folder: Path) -> str:
    """Return a hash of the names and contents of a folder's files. Raises `ConfigError` for an empty folder."""
    files = sorted(path for path in folder.glob("*") if path.is_file())
    if not files:
        raise ConfigError(f"{folder} holds no files; give the folder of a saved adapter")
    return _digest_of(files, folder)


def _digest_of(files: list[Path], root: Path) -> str:
    stamp = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    return _hash_files(stamp, root)


@functools.lru_cache(maxsize=256)
def _hash_files(stamp: tuple[tuple[Path, int, int], ...], root: Path) -> str:
    # Cached by time and size too: one process composes all cells of a table and must not read 16 GB for each.
    total = hashlib.sha256()
    for path, _, size in stamp:
        total.update(f"{path.relative_to(root)}:{size}\n".encode())
        total.update(bytes.fromhex(checksum(path)))
    return total.hexdigest()


@functools.cache
def _exported(root: Path) -> Path:
    return tinyworld.export(root)


@functools.cache
def _verified(name: str) -> str:
    return tinyworld.verify(name)
