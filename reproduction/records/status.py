"""A run's folder and its states.

config.json      the requested run: {"experiment", "scale", "seed", "model", "method", "data", "train"}
status.json      {"state", "reason", "attempts", "started", "ended"}
resources.json   resource figures, written when done
saved.json       the saved weights, adapter/ or model/, with the SHA-256 of each file
provenance.json  code, versions and machine of the last start
seconds.json     {"seconds": total, "sittings": [[start, seconds], …]} of training and evaluation, one for each time
answers/<benchmark>-<digest>/{meta.json, answers.jsonl, throughput.json}
eval/<benchmark>-<digest>/{meta.json, items.jsonl, DONE}
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from reproduction.records.files import RecordError, read_json, write_json
from reproduction.records.identity import canonical, identity
from reproduction.records.items import META, is_complete
from reproduction.records.provenance import environment

RUNNING, DONE, OOM, FAILED, INTERRUPTED = STATES = ("running", "done", "oom", "failed", "interrupted")
ENDINGS = (OOM, FAILED, INTERRUPTED)


class Run:
    """One cell (of a table's grid) on disk. Files are replaced atomically, so a kill leaves the old or the new state.

    ``running`` at `start` means that an earlier process was killed; ``attempts`` counts it. Only one process at a time
    may work in a run's folder, see `reproduction.running.run_lock`.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def config(self) -> dict[str, Any]:
        """Content of config.json. Raises `RecordError` if it is missing or not a run's."""
        path = self.folder / "config.json"
        config = read_json(path)
        try:
            identity(config)
        except (ValueError, TypeError) as error:
            raise RecordError(f"{path}: {error}; delete its folder and run the cell again") from None
        return config

    @property
    def status(self) -> dict[str, Any]:
        """Content of status.json, ``{}`` for a run that never started. Raises `RecordError` for an unknown state."""
        status = self._read("status.json")
        if status and (status.get("state") not in STATES or not isinstance(status.get("attempts", 0), int)):
            raise RecordError(
                f"{self.folder / 'status.json'} says state {status.get('state')!r}, attempts "
                f"{status.get('attempts')!r}; the states are {', '.join(STATES)}: delete the file, and the cell is run "
                "again"
            )
        return status

    @property
    def state(self) -> str | None:
        """One of `STATES`, or None for a run that never started."""
        return self.status.get("state")

    @property
    def done(self) -> bool:
        return self.state == DONE

    @property
    def resources(self) -> dict[str, Any]:
        """Content of resources.json; ``{}`` if the run is not done and the file is missing, as for the two below."""
        return self._read("resources.json")

    @property
    def provenance(self) -> dict[str, Any]:
        return self._read("provenance.json")

    @property
    def seconds(self) -> dict[str, Any]:
        """Content of seconds.json; older runs have only the total."""
        seconds = self._read("seconds.json")
        if not isinstance(seconds.get("seconds", 0), int | float) or not isinstance(seconds.get("sittings", []), list):
            raise RecordError(f"{self.folder / 'seconds.json'} holds {seconds}, which is no time: delete the file")
        return seconds

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return read_json(path) if path.exists() else {}

    def start(self, config: Mapping[str, Any]) -> None:
        """Write config, provenance and the state ``running``. A run in any state but done may start again.

        Raises `RecordError` if the run is done, or its folder holds a run of another identity.
        """
        status = self.status
        if status.get("state") == DONE:
            raise RecordError(f"{self.folder} is done, and a finished run is not run again; delete it to repeat it")
        if (self.folder / "config.json").exists() and canonical(identity(self.config)) != canonical(identity(config)):
            raise RecordError(f"{self.folder} holds a run of another config; give this one a folder of its own")
        write_json(self.folder / "config.json", dict(config))
        write_json(self.folder / "provenance.json", environment())
        attempts = status.get("attempts", 0) + 1
        reason = "the attempt before was killed while running" if status.get("state") == RUNNING else ""
        self._write(state=RUNNING, reason=reason, attempts=attempts, started=_now(), ended=None)

    def finish(self, resources: Mapping[str, Any]) -> None:
        """Write the resources, then the state ``done``. Raises `RecordError` if the run is not running."""
        self._require_running("finish")
        write_json(self.folder / "resources.json", dict(resources))
        self._write(**self.status | {"state": DONE, "ended": _now()})

    def fail(self, state: str, reason: str) -> None:
        """End as ``oom``, ``failed`` or ``interrupted``, with the reason in a sentence.

        Raises ValueError for any other state or an empty reason, `RecordError` if the run is not running.
        """
        if state not in ENDINGS or not reason.strip():
            raise ValueError(f"a run fails as {', '.join(ENDINGS)} and with a reason; got {state!r}, {reason!r}")
        self._require_running("fail")
        self._write(**self.status | {"state": state, "reason": reason, "ended": _now()})

    def eval_folder(self, benchmark: str, digest: str) -> Path:
        """Return the folder of one benchmark's records under one protocol."""
        return self.folder / "eval" / f"{benchmark}-{digest}"

    def evaluations(self) -> list["Evaluation"]:
        """Return the finished evaluations (with a valid DONE mark), sorted by folder name."""
        folders = sorted((self.folder / "eval").glob("*/")) if (self.folder / "eval").is_dir() else []
        return [Evaluation(folder) for folder in folders if is_complete(folder)]

    def _require_running(self, verb: str) -> None:
        if self.state != RUNNING:
            raise RecordError(f"cannot {verb} {self.folder}: its state is {self.state!r}; start it first")

    def _write(self, **status: Any) -> None:
        write_json(self.folder / "status.json", status)


class Evaluation:
    """One finished evaluation of a run, named ``<benchmark>-<digest of the protocol>``."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.name = self.folder.name

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Content of meta.json: {"benchmark", "protocol", "items", "samples", "data_digest"}. Raises `RecordError`."""
        path = self.folder / META
        meta = read_json(path)
        if missing := {"benchmark", "protocol", "items"} - set(meta):
            raise RecordError(f"{path} lacks {', '.join(sorted(missing))}; delete its folder and evaluate again")
        if not isinstance(meta["protocol"], Mapping):
            raise RecordError(
                f"{path} says protocol {meta['protocol']!r}, which is no object; delete its folder and evaluate again"
            )
        return meta

    @property
    def benchmark(self) -> str:
        return self.meta["benchmark"]

    @property
    def protocol(self) -> dict[str, Any]:
        return self.meta["protocol"]


def find_runs(root: Path) -> list[Run]:
    """Return the runs directly under ``root`` (folders with a config.json), sorted by name."""
    root = Path(root)
    return [Run(path.parent) for path in sorted(root.glob("*/config.json"))] if root.is_dir() else []


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
