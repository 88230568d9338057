"""A whole benchmark: every scenario with every variant, the reference first and again last."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters
from transformers import PreTrainedModel

from reproduction.benchmark import idle_check
from reproduction.benchmark.measure import MIB, allocated_bytes, peak_bytes, synchronize, time_step
from reproduction.benchmark.models import MeasuredModel, build_base, free_memory, with_variant
from reproduction.benchmark.record import BUSY, DONE, FAILED, OOM, SITUATION, Records, benchmark_environment
from reproduction.benchmark.spec import Group, Plan, Scenario, Variant
from reproduction.benchmark.workload import Step, workload

SETTLE = 1.0
"""Minimum warm-up in seconds on a GPU, whose clocks follow its load."""

LEFT_OVER = 64
"""MiB that may stay allocated on a GPU after a variant, such as library workspaces."""

WAY_LABELS = {"own": "", "plain": ", plain PyTorch", "copied": ", frozen weights copied"}
"""Label suffix of each way of computing."""

Result = dict[str, Any]
"""Unformatted columns of a row."""


def run_benchmark(plan: Plan, folder: Path | str, *, command: str, log: Callable[[str], None]) -> list[str]:
    """Measure a plan, write folder/benchmark.csv, and return one sentence for each problem.

    Each row is written as soon as it is measured. A variant that fails or runs out of memory gets a row that says so,
    and the others continue. The reference, `Group.variants[0]`, is measured first and again last: ratios are to its
    first median, and if its two medians differ too much the rows count as busy.

    Args:
        plan: scenarios and variants to measure.
        folder: folder of benchmark.csv and provenance.json.
        command: command line as typed, for provenance.json.
        log: called with one line for each row.

    Raises:
        Busy: the machine is not free, and `plan.allow_busy` is false; nothing was measured.
        RecordError: the folder has rows of another environment.
    """
    device = torch.device(plan.device)
    records = Records(folder, benchmark_environment(plan.model.label, plan.model.dtype, device))
    reading = idle_check.read(device, plan.limits, ours=False)
    if reading.utilisation is None:
        log("whether the GPU is free could not be checked: nvidia-smi does not answer")
    reason = idle_check.why_busy(reading, plan.limits)
    if reason and not plan.allow_busy:
        raise idle_check.Busy(
            f"the machine was busy: {reason}; run it when nothing else runs, or with allow_busy=true, which marks the "
            "rows"
        )
    records.add_command(command, [scenario.name for group in plan.groups for scenario in group.scenarios])
    base, layers, problems = None, None, []
    for group in plan.groups:
        if group.scenarios[0].layers != layers:
            base = None
            free_memory()
            layers = group.scenarios[0].layers
            base = build_base(plan, layers)
        problems += GroupRun(plan, group, records=records, log=log).measure(base)
    return problems


class GroupRun:
    """The measurement of one group of scenarios on its base."""

    def __init__(self, plan: Plan, group: Group, *, records: Records, log: Callable[[str], None]):
        self.plan, self.group, self.records, self.log = plan, group, records, log
        self.device = torch.device(plan.device)
        self.first: dict[str, Result] = {}
        self.rows: dict[str, list[dict[str, str]]] = {scenario.name: [] for scenario in group.scenarios}

    def measure(self, base: PreTrainedModel) -> list[str]:
        """Measure all rows of the group; return one sentence for each that is not done."""
        reference, *others = self.group.variants
        self._variant(base, reference)
        held = allocated_bytes(self.device)
        for variant in others:
            self._variant(base, variant)
            if held is not None and (more := (allocated_bytes(self.device) - held) / MIB) > LEFT_OVER:
                self.log(f"{more:.0f} MiB of {variant.name} stayed on the device")
        self._settle(self._results(base, reference, keep=lambda *_: None) if others else {})
        self.records.write()
        return [
            f"{row['scenario']}, {row['variant']}: {row['status']} ({row['reason']})"
            for rows in self.rows.values()
            for row in rows
            if row["status"] in (BUSY, FAILED)
        ]

    def _variant(self, base: PreTrainedModel, variant: Variant) -> None:
        disturbed = idle_check.why_busy(idle_check.read(self.device, self.plan.limits, ours=True), self.plan.limits)
        self._results(
            base, variant, keep=lambda scenario, result: self._keep(scenario, variant, {"reason": disturbed} | result)
        )

    def _results(
        self, base: PreTrainedModel, variant: Variant, keep: Callable[[Scenario, Result], None]
    ) -> dict[str, Result]:
        """Measure a variant in every scenario of the group; pass each result to `keep` as soon as it is measured."""
        results: dict[str, Result] = {}

        def found(scenario: Scenario, result: Result) -> None:
            results[scenario.name] = result
            keep(scenario, result)

        def measure_all() -> Result:
            with with_variant(base, variant, self.plan.seed) as model:
                for scenario in self.group.scenarios:
                    found(scenario, model.facts | outcome(lambda at=scenario: measure(model, at, self.plan)))
                    free_memory()
            return {}

        failure = outcome(measure_all)
        free_memory()
        for scenario in self.group.scenarios:
            if scenario.name not in results:
                found(scenario, failure)
        return results

    def _keep(self, scenario: Scenario, variant: Variant, result: Result) -> None:
        if variant is self.group.variants[0]:
            self.first[scenario.name] = result
        result = result | compared(result, self.first[scenario.name])
        disturbed = result.get("reason") or idle_check.why_disturbed(result.get("spread", 0.0), self.plan.limits)
        situation = {"scenario": scenario.name} | asdict(scenario)
        row = {column: situation[column] for column in SITUATION} | {
            "variant": variant.name,
            "method": variant.method.name,
            "label": variant.method.label + WAY_LABELS[variant.way],
            "merged": variant.merged,
            "busy": False,
        }
        row |= {column: value for column, value in result.items() if column != "spread"}
        if row["status"] == DONE and disturbed:
            row |= self._disturbed(disturbed)
        written = self.records.append(row)
        self.rows[scenario.name].append(written)
        self.log(line(written))

    def _disturbed(self, reason: str) -> Result:
        return {"busy": True, "reason": reason, "status": DONE if self.plan.allow_busy else BUSY}

    def _settle(self, last: Mapping[str, Result]) -> None:
        """Write each scenario's reference drift, and mark the rows of scenarios that drifted too far."""
        for name, rows in self.rows.items():
            first, again = self.first[name].get("median_ms"), last.get(name, {}).get("median_ms")
            if first is None or again is None:
                continue
            change = again / first - 1
            reason = idle_check.why_drifted(change, self.plan.limits)
            if rows[0]["busy"] == "true":
                reason = reason or f"the reference: {rows[0]['reason']}"
            for row in rows:
                self.records.amend(row, {"base_drift": change})
                if reason and row["status"] == DONE and row["busy"] == "false":
                    self.records.amend(row, self._disturbed(reason))
            self.log(
                f"{name}: the reference drifted by {100 * change:+.2f} %" + (f"; busy: {reason}" if reason else "")
            )


def measure(model: MeasuredModel, scenario: Scenario, plan: Plan) -> Result:
    """Measure times, peak memory and compilation of one model in one scenario. Raises what the model raises."""
    device = model.model.device
    counters.clear()
    with workload(model.model, scenario, plan.seed) as (step, fastest):
        began = time.perf_counter()
        step()
        synchronize(device)
        first_step = time.perf_counter() - began
        _warm(step, scenario.warmup, device)
        peak = peak_bytes(step, device)
        timed = fastest()
        if timed is not step:
            _warm(timed, scenario.warmup, device)
        timing = time_step(timed, scenario.repeats, device)
    result = {"status": DONE, **timing}
    if scenario.compiled:
        result |= {
            "compile_seconds": first_step,
            "graphs": counters["stats"]["unique_graphs"],
            "graph_breaks": sum(counters["graph_break"].values()),
        }
    if peak is not None:
        result |= {"peak_mib": peak / MIB, "peak_above_weights_mib": (peak - model.weights_bytes) / MIB}
    return result


def _warm(step: Step, least: int, device: torch.device) -> None:
    began, done = time.perf_counter(), 0
    while done < least or (device.type == "cuda" and time.perf_counter() - began < SETTLE):
        step()
        synchronize(device)
        done += 1


def compared(result: Mapping[str, Any], reference: Mapping[str, Any]) -> Result:
    """Return the columns that compare a result with the reference's; none without a reference or if either failed."""
    columns = {}
    for column, of in (("ratio", "median_ms"), ("memory_ratio", "peak_above_weights_mib")):
        if result.get(of) is not None and reference.get(of):
            columns[column] = result[of] / reference[of]
    if result.get("peak_mib") is not None and reference.get("peak_mib") is not None:
        columns["extra_mib"] = result["peak_mib"] - reference["peak_mib"]
    return columns


def outcome(function: Callable[[], Result]) -> Result:
    """Return a function's result, or a status and reason if it fails; out of memory has its own status.

    An interrupt is not caught. The error's traceback, which holds tensors, is released before this returns.
    """
    try:
        return function()
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "out of memory" in reason
        return {"status": OOM if out_of_memory else FAILED, "reason": f"{type(error).__name__}: {reason}"[:300]}


def line(row: Mapping[str, str]) -> str:
    """Format one row for the terminal: milliseconds, ratio to the reference, memory above the weights."""
    head = f"{row['scenario']:<24} {row['variant']:<16} "
    if row["status"] not in (DONE, BUSY):
        return f"{head}{row['status']}: {row['reason']}"
    columns = (
        ("median_ms", "{:10.3f} ms"), ("ratio", "  x{:6.3f}"),
        ("peak_above_weights_mib", "  {:9.1f} MiB above weights"), ("memory_ratio", "  x{:6.3f}"),
        ("compile_seconds", "  compiled in {:.1f} s"),
    )  # fmt: skip
    figures = "".join(text.format(float(row[column])) for column, text in columns if row[column])
    return head + figures + (f"  busy: {row['reason']}" if row["busy"] == "true" else "")
