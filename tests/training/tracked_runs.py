"""What the trackers wrote, read back from their files."""

import json
import struct
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 2**15


def wandb_records(run: Path) -> list[tuple[str, object]]:
    """The records of a W&B run's file, (kind, message) each: a log in LevelDB's format after seven bytes of header."""
    (file,) = run.glob("*.wandb")
    content, at, records, part = file.read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
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
    """By step what was logged, W&B's own keys left out."""
    found = {}
    for kind, message in wandb_records(run):
        if kind == "history":
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in message.item}
            found[items["_step"]] = {key: value for key, value in items.items() if not key.startswith("_")}
    return found


def wandb_config(run: Path) -> dict:
    """The run's config."""
    (start,) = [message for kind, message in wandb_records(run) if kind == "run"][:1]
    return {item.key: json.loads(item.value_json) for item in start.config.update}


def tensorboard_history(folder: Path) -> dict[int, dict[str, float]]:
    """By step what was logged."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    found: dict[int, dict[str, float]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            assert name not in found.setdefault(event.step, {}), f"{name} stands twice at step {event.step}"
            found[event.step][name] = event.value
    return found
