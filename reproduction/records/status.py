"""A run's folder and the closed set of states that it walks.

config.json      what was asked for: {"experiment", "scale", "seed", "model", "method", "data", "train"}
status.json      {"state", "reason", "attempts", "started", "ended"}
resources.json   what it took, written when done
saved.json       what training saved, adapter/ or model/, with the SHA-256 of each file
provenance.json  code, versions and machine of the last start
seconds.json     {"seconds": all sittings together, "sittings": [[began, seconds], …]}, of training and evaluating
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
    """One cell on disk. Every file is replaced whole, so a kill leaves the state before or after, nothing between.

    ``running`` found at `start` means that the process was killed earlier; it is counted in ``attempts``. One process
    at a time may work in a run's folder: `reproduction.running.run_lock` sees to that.
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
        """config.json. Raises `RecordError` where there is none, or one that no run has."""
        path = self.folder / "config.json"
        config = read_json(path)
        try:
            identity(config)
        except (ValueError, TypeError) as error:
            raise RecordError(f"{path}: {error}; delete its folder and run the cell again") from None
        return config

    @property
    def status(self) -> dict[str, Any]:
        """status.json, or ``{}`` where the run was never started. Raises `RecordError` for a state that is none."""
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
        """One of `STATES`, or None where the run was never started."""
        return self.status.get("state")

    @property
    def done(self) -> bool:
        return self.state == DONE

    @property
    def resources(self) -> dict[str, Any]:
        """resources.json; of a run that is not done, as of the two below, ``{}`` where there is none."""
        return self._read("resources.json")

    @property
    def provenance(self) -> dict[str, Any]:
        return self._read("provenance.json")

    @property
    def seconds(self) -> dict[str, Any]:
        """seconds.json; an older run has the sum alone."""
        seconds = self._read("seconds.json")
        if not isinstance(seconds.get("seconds", 0), int | float) or not isinstance(seconds.get("sittings", []), list):
            raise RecordError(f"{self.folder / 'seconds.json'} holds {seconds}, which is no time: delete the file")
        return seconds

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return read_json(path) if path.exists() else {}

    def start(self, config: Mapping[str, Any]) -> None:
        """Write config, provenance and the state ``running``; a run that ended otherwise than done may start again.

        Raises `RecordError` where the run is done, or its folder holds a run of another identity.
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
        """Write what it took and then the state ``done``. Raises `RecordError` where the run is not running."""
        self._require_running("finish")
        write_json(self.folder / "resources.json", dict(resources))
        self._write(**self.status | {"state": DONE, "ended": _now()})

    def fail(self, state: str, reason: str) -> None:
        """End as ``oom``, ``failed`` or ``interrupted``, with the reason in a sentence.

        Raises ValueError for any other state or an empty reason, `RecordError` where the run is not running.
        """
        if state not in ENDINGS or not reason.strip():
            raise ValueError(f"a run fails as {', '.join(ENDINGS)} and with a reason; got {state!r}, {reason!r}")
        self._require_running("fail")
        self._write(**self.status | {"state": state, "reason": reason, "ended": _now()})

    def eval_folder(self, benchmark: str, digest: str) -> Path:
        """Where the records of one benchmark under one protocol lie."""
        return self.folder / "eval" / f"{benchmark}-{digest}"

    def evaluations(self) -> list["Evaluation"]:
        """The finished evaluations (DONE mark good), sorted by folder name."""
        folders = sorted((self.folder / "eval").glob("*/")) if (self.folder / "eval").is_dir() else []
        return [Evaluation(folder) for folder in folders if is_complete(folder)]

    def _require_running(self, verb: str) -> None:
        if self.state != RUNNING:
            raise RecordError(f"cannot {verb} {self.folder}: its state is {self.state!r}; start it first")

    def _write(self, **status: Any) -> None:
        write_json(self.folder / "status.json", status)


class Evaluation:
    """One finished evaluation of a run; its name, ``<benchmark>-<digest>``, says how it was asked."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.name = self.folder.name

    @cached_property
    def meta(self) -> dict[str, Any]:
        """meta.json: {"benchmark", "protocol", "items", "samples", "data_digest"}. Raises `RecordError`."""
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
    """The runs right under ``root`` (folders with a config.json), sorted by name."""
    root = Path(root)
    return [Run(path.parent) for path in sorted(root.glob("*/config.json"))] if root.is_dir() else []


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
