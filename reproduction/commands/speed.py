"""Evaluation speed: whole benchmarks end to end, and the same prompts with the usual alternatives.

    transformers    `generate` with a left-padded batch, greedy; both ignore end tokens, so that both generate the same
                    number of tokens
    lm-eval         `HFLM.loglikelihood` of the same contexts and choices, in the layout "raw", which is its own

All run without cuDNN's attention (`reproduction.evals.batching.evaluating`), which would re-plan at each step of
`generate`. A whole benchmark is everything but loading the model: rows, prompts, tokens, answers, files, scores, and
the programs that it runs.
"""

import dataclasses
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from reproduction.benchmark.record import benchmark_environment
from reproduction.cells.evaluation import EvalJob
from reproduction.commands.benchmark import device_folder, the_device
from reproduction.evals.answers import THROUGHPUT
from reproduction.evals.batching import evaluating, fits, seconds
from reproduction.evals.generation import Generation
from reproduction.evals.items import Prompt
from reproduction.evals.likelihood import Likelihood
from reproduction.evals.prompts import Prompts
from reproduction.evals.task import RAW, Protocol
from reproduction.records import environment, read_items, read_json, write_json
from reproduction.report.speed import write_speed
from reproduction.running.evaluate import evaluate
from reproduction.system.atomic import scratch_folder

HARNESS_BYTES = 25 * 10**9
"""Bytes of logits per lm-eval pass on a GPU: it keeps those of every token, and their float32 copies."""

HARNESS_ROWS = 64
"""Maximum batch of lm-eval; more rows of a thousand tokens are no faster."""

Row = dict[str, Any]


def record_speed(job: EvalJob, config: DictConfig) -> list[Path]:
    """Measure every protocol of a job and write each row at once into the device's results folder.

    ``config`` is a composed configs/evaluation_speed.yaml. Returns the paths of evaluation.csv and evaluation.md.
    """
    device = the_device()
    folder = Path(config.into) if config.into else device_folder(device, config.results_dir)
    name, found = config.label or config.model.label, environment()
    places = ("results_dir=", "data_root=", "into=")
    arguments = [re.sub(r"=/.*", "=<folder>", part) for part in sys.argv if not part.startswith(places)]
    own = benchmark_environment(name, config.model.dtype, torch.device(device))
    own |= {"weights": config.model.init, "command": shlex.join(["python", *arguments])}
    own["lm_eval"] = found["packages"].get("lm-eval")
    found |= {key: own[key] for key in ("device", "driver", "command")}
    found |= {"model": name, "benchmarks": [f"{protocol.benchmark} {protocol.name}" for protocol in job.protocols]}
    place = folder / "provenance.json"
    runs = read_json(place)["runs"] if place.is_file() else []
    write_json(place, {"runs": [*runs, found]})
    paths: list[Path] = []

    def keep(row: Row) -> None:
        paths[:] = write_speed([own | row], folder)
        print(_line(row), flush=True)

    measure(job, compared=config.compared, on_row=keep)
    return paths


def _line(row: Row) -> str:
    memory = f", {row['gpu_bytes'] / 1e9:.1f} GB" if row["gpu_bytes"] else ""
    line = (
        f"{row['benchmark']} {row['protocol']}: {row['items']} items, {row['seconds']:.1f} s "
        f"(prefill {row['prefill_seconds']:.1f}, decoding {row['decode_seconds']:.1f}{memory})"
    )
    if "baseline" in row:
        line += (
            f"; {row['compared_items']} prompts: {row['compared_seconds']:.2f} s (at first {row['first_seconds']:.2f})"
            f", {row['baseline']} {row['baseline_seconds']:.2f} s in batches of {row['baseline_batch']}: "
            f"x{row['speedup']:.2f}, agreement {row['agreement']:.3f}"
        )
    return line


def measure(job: EvalJob, *, compared: int, on_row: Callable[[Row], None]) -> None:
    """Call ``on_row`` with a row for each of the job's protocols, and again once its baseline is measured.

    The columns are `reproduction.report.speed.COLUMNS` without the environment.

    Args:
        job: its model is loaded once. Each benchmark is answered in a temporary folder; the job's is not used.
        compared: prompts of each benchmark that the baselines also answer; 0 for no baseline.
    """
    torch.set_num_threads(job.threads)
    model, tokenizer = job.load()
    if torch.cuda.is_available():
        model = model.to("cuda")
    for protocol in job.protocols:
        row = _whole(job, protocol, model=model, tokenizer=tokenizer)
        on_row(row)
        if compared and protocol.scoring in BASELINES:
            prompts = _prompts(job, protocol, model=model, tokenizer=tokenizer, count=compared)
            with evaluating(model):
                on_row(row | BASELINES[protocol.scoring](model, tokenizer, prompts, protocol=protocol))
        _free_memory(model)


def _whole(job: EvalJob, protocol: Protocol, *, model: Any, tokenizer: Any) -> Row:
    with scratch_folder() as folder:
        how = {"folder": folder, "load": lambda: (model, tokenizer), "protocols": (protocol,), "processes": 1}
        alone = dataclasses.replace(job, **how)
        _free_memory(model)
        began = time.perf_counter()
        (scores,) = evaluate(alone)
        took = time.perf_counter() - began
        throughput = read_json(alone.answers_folder(protocol) / THROUGHPUT)
        items = len({item["item_id"] for item in read_items(scores)})
    own = ("prompt_tokens", "generated_tokens", "prefill_seconds", "decode_seconds", "gpu_bytes")
    return {
        "benchmark": protocol.benchmark,
        "protocol": protocol.name,
        "max_new_tokens": protocol.max_new_tokens,
        "items": items,
        "answers": throughput["answers"],
        "seconds": took,
        **{name: throughput[name] for name in own},
    }


def _prompts(job: EvalJob, protocol: Protocol, *, model: Any, tokenizer: Any, count: int) -> list[Prompt]:
    asked = job.asked(protocol)
    layout = RAW if protocol.scoring == "likelihood" else protocol.layout
    asked["protocol"] = dataclasses.replace(protocol, layout=layout, limit=min(count, protocol.limit or count))
    room = protocol.max_new_tokens or 4
    return Prompts(**asked).fitting(lambda some: fits(model, tokenizer, some, new_tokens=room))


@torch.no_grad()
def _beside_generate(model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, protocol: Protocol) -> Row:
    """Measure greedy answers of full length, in the same batch as transformers' `generate`."""
    greedy = dataclasses.replace(protocol, samples=1, temperature=0.0)
    asking = Generation(model, tokenizer, prompts, protocol=greedy, stops=())
    asking.ends = frozenset()
    most = min(len(prompts), asking.side_by_side())
    (batch,) = asking.batches([(prompt, [0]) for prompt in prompts[:most]], most)
    cold, _ = _timed(model, lambda: asking.answer(batch))  # captures graphs for all others
    took, found = _timed(model, lambda: asking.answer(batch))
    order, ours = batch[0], {record["item_id"]: record for record in found}
    _free_memory(model)
    _generate(model, tokenizer, order, tokens=2)
    other, theirs = _timed(model, lambda: _generate(model, tokenizer, order, tokens=protocol.max_new_tokens))
    if sum(record["tokens"] for record in ours.values()) != theirs.numel():
        raise RuntimeError(f"{protocol.benchmark}: the two ways did not generate the same number of tokens")
    texts = tokenizer.batch_decode(theirs, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    same = sum(_common_share(ours[p.item_id]["raw"], text) for p, text in zip(order, texts, strict=True)) / len(order)
    own = {"compared_tokens": theirs.numel(), "first_seconds": cold, "batch": len(order), "baseline_batch": len(order)}
    return _compared(len(order), took, other) | own | {"baseline": "transformers", "agreement": same}


def _generate(model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, tokens: int) -> torch.Tensor:
    """Return new tokens (B, tokens) of a batched `generate`; no end token ends an answer."""
    from transformers import GenerationConfig

    tokenizer.padding_side = "left"
    given = tokenizer([prompt.text for prompt in prompts], padding=True, return_tensors="pt").to(model.device)
    before = model.generation_config
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=tokenizer.pad_token_id)
    try:
        found = model.generate(
            input_ids=given["input_ids"], attention_mask=given["attention_mask"], max_new_tokens=tokens
        )
    finally:
        model.generation_config = before
    return found[:, given["input_ids"].shape[1] :]


def _common_share(ours: str, theirs: str) -> float:
    """Return the common prefix's share of the longer text: greedy answers diverge where two logits round otherwise."""
    same = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return same / max(len(ours), len(theirs), 1)


def _beside_harness(model: Any, tokenizer: Any, prompts: Sequence[Prompt], *, protocol: Protocol) -> Row:
    """Measure log-probabilities of the same choices after the same contexts, tokenizing included in both."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    def ask() -> dict[str, list[float]]:
        asking = Likelihood(model, tokenizer, prompts, protocol=protocol, stops=())
        batches = asking.batches([(prompt, [0]) for prompt in prompts], asking.side_by_side())
        return {record["item_id"]: record["logprobs"] for batch in batches for record in asking.answer(batch)}

    cold, _ = _timed(model, ask)
    took, ours = _timed(model, ask)
    longest = max(map(len, tokenizer([prompt.text for prompt in prompts])["input_ids"]))
    row_bytes = longest * model.config.vocab_size * (4 + model.dtype.itemsize)
    rows = max(1, min(HARNESS_ROWS, len(prompts), HARNESS_BYTES // row_bytes))
    start = tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=rows, add_bos_token=start)
    pairs = [Instance("loglikelihood", {}, (p.text, choice), 0) for p in prompts for choice in p.choices]
    harness.loglikelihood(pairs[: len(prompts[0].choices)], disable_tqdm=True)
    other, found = _timed(model, lambda: iter(harness.loglikelihood(pairs, disable_tqdm=True)))
    theirs = {prompt.item_id: [next(found)[0] for _ in prompt.choices] for prompt in prompts}
    same = sum(ours[key].index(max(ours[key])) == theirs[key].index(max(theirs[key])) for key in ours) / len(ours)
    own = {"first_seconds": cold, "batch": len(prompts), "baseline_batch": rows}
    return _compared(len(prompts), took, other) | own | {"baseline": "lm-eval", "agreement": same}


def _compared(items: int, took: float, other: float) -> Row:
    return {"compared_items": items, "compared_seconds": took, "baseline_seconds": other, "speedup": other / took}


def _timed(model: Any, work: Callable[[], Any]) -> tuple[float, Any]:
    began = seconds(model.device)
    found = work()
    return seconds(model.device) - began, found


def _free_memory(model: Any) -> None:
    """Release memory that no tensor uses, so that each is measured with the same free memory."""
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


BASELINES: dict[str, Callable[..., Row]] = {"generated": _beside_generate, "likelihood": _beside_harness}
"""A protocol's scoring → the baseline for its prompts."""
