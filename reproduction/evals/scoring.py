"""Second step of an evaluation: parse and score stored answers. Needs neither a model nor torch.

folder/meta.json       {"benchmark", "protocol", "unit", "items", "samples", "data_digest"}; if any, "left_out":
                       {reason: item ids} and "controls": mean scores of known answers
folder/items.jsonl     the scored records
folder/status.json     written only if scoring ends early: {"state": "failed"|…, "reason"}
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
    """Score the stored answers to all items; older scores of the same evaluation are replaced.

    Args:
        protocol, rows, shown, template, identity: as passed to `answering.answer`.
        answers: folder of the answers.
        folder: folder of this evaluation only.
        permissions: needed by benchmarks that run code.
        progress: called with (programs done, total) by benchmarks that run code.

    Raises:
        ValueError: no rows, every row left out, or too few worked examples.
        RecordError: answers are missing, damaged or another model's, or the folder holds another evaluation.
        reproduction.evals.sandbox.ExecutionRefused: the benchmark runs code, which is not allowed or not possible.
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
        else:  # a loss uses the whole record
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
    """Return the meta without the protocol's name and file path, which do not affect scores."""
    own = {key: value for key, value in meta["protocol"].items() if key not in ("name", "file")}
    return meta | {"protocol": own}
