"""Run identity, status, per-item records and provenance: the files between computing and reporting."""

from reproduction.records.files import RecordError, read_json, write_json, write_text
from reproduction.records.identity import canonical, digest, identity, run_digest, run_name
from reproduction.records.items import (
    ANSWERS,
    CONTROLS,
    DONE,
    LEFT_OUT,
    META,
    AnswerLog,
    is_complete,
    read_items,
    write_items,
)
from reproduction.records.provenance import environment
from reproduction.records.status import STATES, Evaluation, Run, find_runs

__all__ = [
    "ANSWERS", "CONTROLS", "DONE", "LEFT_OUT", "META", "STATES", "AnswerLog", "Evaluation", "RecordError", "Run",
    "canonical", "digest", "environment", "find_runs", "identity", "is_complete", "read_items", "read_json",
    "run_digest", "run_name", "write_items", "write_json", "write_text",
]  # fmt: skip
