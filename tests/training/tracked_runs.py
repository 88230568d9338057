"""Readers of the files that the trackers write."""

import json
import struct
import time
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 2**15


def wandb_records(run: Path, *, within: float = 10) -> list[tuple[str, object]]:
    """Read the records (kind, message) of a finished W&B run's file.

    W&B's own process may write the last ones, up to the final "exit", after `finish` returns.
    """
    (file,) = run.glob("*.wandb")
    deadline = time.monotonic() + within
    while not (records := _records(file.read_bytes())) or records[-1][0] != "exit":
        assert time.monotonic() < deadline, f"{file} has no end"
        time.sleep(0.05)
    return records


def _records(content: bytes) -> list[tuple[str, object]]:
    """Parse a possibly incomplete log in LevelDB's format after its seven bytes of header."""
    at, records, part = 7, [], b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        if at + 7 + length > len(content):
            break
        part += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(part)
            name = record.WhichOneof("record_type")
            records.append((name, getattr(record, name)))
            part = b""
    return records


def wandb_history(run: Path) -> dict[int, dict[str, float]]:
    """Read the logged values by step, without W&B's own keys."""
    found = {}
    for kind, message in wandb_records(run):
        if kind == "history":
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in message.item}
            found[items["_step"]] = {key: value for key, value in items.items() if not key.startswith("_")}
    return found


def wandb_config(run: Path) -> dict:
    """Read the run's config."""
    (start,) = [message for kind, message in wandb_records(run) if kind == "run"][:1]
    return {item.key: json.loads(item.value_json) for item in start.config.update}


def tensorboard_history(folder: Path) -> dict[int, dict[str, float]]:
    """Read the logged values by step."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    found: dict[int, dict[str, float]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            assert name not in found.setdefault(event.step, {}), f"{name} stands twice at step {event.step}"
            found[event.step][name] = event.value
    return found
