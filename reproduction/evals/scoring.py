"""The second step of an evaluation: stored answers, read and scored item by item. No model, and no torch.

folder/meta.json       what was asked: {"benchmark", "protocol", "unit", "items", "samples", "data_digest"}, and of
                       items that could not be "left_out": {reason: their ids}, and of known answers the mean score:
                       "controls"
folder/items.jsonl     the records, scored
folder/status.json     how scoring ended, where that was before its end: {"state": "failed"|…, "reason"}
folder/DONE            SHA-256 of items.jsonl, written last
"""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from reproduction.data.templates import Template
from reproduction.evals.answers import answered_prompts, require_model, status_on_failure
from reproduction.evals.items import sha16
from reproduction.evals.prompts import Prompts
from reproduction.evals.sandbox import Permissions
from reproduction.evals.task import Protocol
from reproduction.records import ANSWERS, CONTROLS, LEFT_OUT, META, AnswerLog, RecordError, read_json, write_items
from reproduction.records.files import write_json


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
        protocol, rows, shown, template, identity: as they were put to the model, see `answering.answer`.
        answers: the folder of the answers.
        folder: of this evaluation alone.
        permissions: what the user allows; only benchmarks that run code ask.
        progress: called with (done, total) of what takes long: programs that are run.

    Raises:
        ValueError: no rows, none that is not left out, or too few worked examples.
        RecordError: answers are missing, damaged or another model's, or the folder holds another evaluation.
        reproduction.evals.sandbox.ExecutionRefused: the benchmark runs code, and that is not allowed or not possible.
    """
    folder, log, task = Path(folder), AnswerLog(Path(answers) / ANSWERS), protocol.task
    asked = Prompts(rows, shown, protocol=protocol, template=template)
    prompts = answered_prompts(asked, log)
    if None in prompts:
        raise RecordError(
            f"{prompts.count(None)} of the {len(prompts)} items of {protocol.benchmark} have no answers in {log.path}: "
            "evaluate the model without rescore=true, which asks for those alone"
        )
    require_model(answers, identity)
    items, left_out = [], defaultdict(list)
    for prompt in prompts:
        given = [log.get((prompt.item_id, prompt.prompt_hash, sample)) for sample in range(protocol.samples)]
        if LEFT_OUT in given[0]:
            left_out[given[0][LEFT_OUT]].append(prompt.item_id)
        else:  # of a loss the whole record
            field = {"generated": "raw", "likelihood": "logprobs"}.get(protocol.scoring)
            items.append((prompt, [each[field] if field else each for each in given]))
    if not items:
        raise ValueError(f"every row of {protocol.benchmark} {protocol.name} is left out: {'; '.join(left_out)}")
    prompts, given = map(list, zip(*items, strict=True))
    controls = task.controls(prompts)
    meta = {
        "benchmark": protocol.benchmark,
        "protocol": asdict(protocol) | {"file": protocol.file and str(protocol.file)},
        "unit": task.unit,
        "items": len(prompts),
        "samples": protocol.samples,
        "data_digest": sha16(json.dumps(asked.rows, sort_keys=True)),
        **({LEFT_OUT: dict(left_out)} if left_out else {}),
        **({CONTROLS: controls} if controls else {}),
    }
    if (folder / META).exists() and _without_names(read_json(folder / META)) != _without_names(meta):
        raise RecordError(
            f"{folder / META} is of another protocol or other data: give this evaluation a folder of its own"
        )
    with status_on_failure(folder):
        write_json(folder / META, meta)
        records = task.score(prompts, given, protocol=protocol, permissions=permissions, progress=progress)
        write_items(folder, records)


def _without_names(meta: dict) -> dict:
    """A meta.json without what can change while what is asked stays: names and places."""
    own = {key: value for key, value in meta["protocol"].items() if key not in ("name", "file")}
    return meta | {"protocol": own}
