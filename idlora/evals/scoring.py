"""The second step of an evaluation: stored answers, read and scored item by item. No model, and no torch.

folder/meta.json       what was asked: {"benchmark", "protocol", "unit", "items", "samples", "data_digest"}
folder/items.jsonl     the records, scored
folder/status.json     how scoring ended, where that was before its end: {"state": "failed"|…, "reason"}
folder/DONE            SHA-256 of items.jsonl, written last
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from idlora.data.templates import Template
from idlora.evals.answers import answered_prompts, ending_on_disk, require_model
from idlora.evals.items import sha16
from idlora.evals.prompts import Prompts
from idlora.evals.protocol import Permissions, Protocol
from idlora.records import ANSWERS, META, AnswerLog, RecordError, read_json, write_items, write_json


def score(
    *,
    protocol: Protocol,
    rows: list[dict],
    shown: list[dict],
    template: Template,
    answers: Path,
    identity: str,
    folder: Path,
    permissions: Permissions,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Scores the stored answers to all items, in the place of older scores of the same evaluation.

    Args:
        protocol: what was asked, and how it is read and judged.
        rows, shown, template: as they were put to the model; see `idlora.evals.answering.answer`.
        answers: the folder of the answers.
        identity: of the model whose scores these are to be, as its answers carry it.
        folder: of this evaluation alone.
        permissions: what the user allows; only benchmarks that run code ask.
        progress: called with (done, total) of what takes long: programs that are run.

    Whatever ends it early is raised, after it was written to status.json.

    Raises:
        ValueError: no rows, or too few worked examples.
        RecordError: answers are missing, damaged or another model's, or the folder holds another evaluation.
        idlora.evals.sandbox.ExecutionRefused: the benchmark runs code, and that is not allowed or not possible.
    """
    folder, log = Path(folder), AnswerLog(Path(answers) / ANSWERS)
    prompts = answered_prompts(asked := Prompts(rows, shown, protocol=protocol, template=template), log)
    if None in prompts:
        raise RecordError(
            f"{prompts.count(None)} of the {len(prompts)} items of {protocol.benchmark} have no answers in {log.path}: "
            "evaluate the model without rescore=true, which asks for those alone"
        )
    require_model(answers, identity)
    meta = {
        "benchmark": protocol.benchmark,
        "protocol": asdict(protocol) | {"file": protocol.file and str(protocol.file)},
        "unit": protocol.task.unit,
        "items": len(prompts),
        "samples": protocol.samples,
        "data_digest": sha16(json.dumps(asked.rows, sort_keys=True)),
    }
    if (folder / META).exists() and _asked(read_json(folder / META)) != _asked(meta):
        raise RecordError(
            f"{folder / META} is of another protocol or other data: give this evaluation a folder of its own"
        )
    given = [
        [log.get((prompt.item_id, prompt.prompt_hash, sample)) for sample in range(protocol.samples)]
        for prompt in prompts
    ]
    if protocol.scoring == "likelihood":
        given = [each["logprobs"] for (each,) in given]
    else:
        given = [[each["raw"] for each in samples] for samples in given]
    with ending_on_disk(folder):
        write_json(folder / META, meta)
        write_items(
            folder,
            protocol.task.score(prompts, given, protocol=protocol, permissions=permissions, progress=progress),
        )


def _asked(meta: dict) -> dict:
    """A meta.json without what can change while what is asked stays: names and places."""
    own = {key: value for key, value in meta["protocol"].items() if key not in ("name", "file")}
    return meta | {"protocol": own}
