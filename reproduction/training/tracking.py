"""Tracking of a training by Weights & Biases, TensorBoard, or both. A failing tracker never stops the training.

folder/wandb/          W&B's own files; `wandb sync` uploads them after an offline run or a lost connection
folder/tensorboard/    TensorBoard's events

Each cell has one tracker run, named after the run's folder, in the group of its experiment, with config.json as its
config. A resumed cell continues it.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback

from reproduction.training import telemetry
from reproduction.training.spec import TrackingSpec, WandbSpec
from reproduction.training.telemetry import Stopwatch

logger = logging.getLogger(__name__)

ROUTER_STEPS = 10
"""Steps between records of the routers, from the first step on; a record routes a micro-batch once more."""
PATIENCE = 30.0
"""Seconds that a run waits for W&B at its start, and at its end for the upload; the rest stays on disk."""


class Wandb:
    """A run of Weights & Biases without console output and system metrics."""

    def __init__(self, spec: WandbSpec, folder: Path, config: Mapping[str, Any]):
        import wandb

        quiet = {"silent": True, "console": "off", "x_disable_stats": True}
        settings = wandb.Settings(mode=spec.mode, init_timeout=PATIENCE, finish_timeout=PATIENCE, **quiet)
        wandb.setup(settings)
        # Without a login `init` asks for a key, and waits for an answer on a terminal.
        if spec.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("there is no API key: run `wandb login`, set WANDB_API_KEY, or take wandb.mode=offline")
        self._run = wandb.init(
            project=spec.project,
            entity=spec.entity,
            group=config.get("experiment"),
            name=folder.name,
            id=folder.name,
            resume="allow",
            dir=folder,
            config=dict(config),
            allow_val_change=True,
            settings=settings,
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class TensorBoard:
    """A folder of TensorBoard's events; repeated steps replace their old events."""

    def __init__(self, folder: Path, config: Mapping[str, Any], *, first_step: int):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)
        self._writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```", first_step)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, failed: bool) -> None:
        self._writer.close()


class Tracking(TrainerCallback):
    """Callback that logs every step's figures, and the routers' entropy every `ROUTER_STEPS` steps.

    Only rank 0 logs. Every rank records the routers in the step's own forward pass, since all ranks must take part when
    ZeRO-3 gathers their weights. The Trainer must log every step, to `stopwatch` first.
    """

    def __init__(self, spec: TrackingSpec, *, model: nn.Module, folder: Path, stopwatch: Stopwatch):
        self.spec, self.model, self.folder, self.stopwatch = spec, model, folder, stopwatch
        self.trackers: dict[str, Wandb | TensorBoard] = {}
        self._watch = ExitStack()
        self._evenness: Callable[[], float | None] | None = None
        self._router_entropy: float | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        path = self.folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if pivots := telemetry.tuner_attribute(self.model, "pivot_sizes", dict)():
            config["pivots"] = pivots
        if self.spec.wandb.mode != "disabled":
            with self._losing("wandb"):
                self.trackers["wandb"] = Wandb(self.spec.wandb, self.folder, config)
        if self.spec.tensorboard:
            with self._losing("tensorboard"):
                self.trackers["tensorboard"] = TensorBoard(self.folder, config, first_step=state.global_step + 1)

    def on_step_begin(self, args, state, control, **kwargs):
        step = state.global_step + 1
        if step == 1 or step % ROUTER_STEPS == 0:
            watched = telemetry.tuner_attribute(self.model, "record_router_entropy", lambda: nullcontext(lambda: None))
            self._evenness = self._watch.enter_context(watched())

    def on_substep_end(self, args, state, control, **kwargs):
        if self._evenness is not None:
            self._router_entropy, self._evenness = self._evenness(), None
            self._watch.close()

    on_step_end = on_substep_end  # the first micro-batch may be the only one

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" not in logs or not self.trackers:
            return
        figures = {name: logs[name] for name in ("loss", "learning_rate", "grad_norm") if name in logs}
        figures["tokens_per_second"] = self.stopwatch.last_tokens_per_second()
        figures["peak_memory_gib"] = telemetry.own_peak_memory_bytes(args.device) / 2**30
        if self._router_entropy is not None:
            figures["router_entropy"], self._router_entropy = self._router_entropy, None
        for name, tracker in list(self.trackers.items()):
            with self._losing(name):
                tracker.log(state.global_step, figures)

    def close(self, *, failed: bool) -> None:
        """End the trackers' runs, marked as failed or not."""
        self._watch.close()
        for name, tracker in list(self.trackers.items()):
            with self._losing(name):
                tracker.finish(failed)

    @contextmanager
    def _losing(self, name: str) -> Iterator[None]:
        """Turn an error of a tracker into a warning, and continue without the tracker."""
        try:
            yield
        except Exception as error:
            self.trackers.pop(name, None)
            way_out = f"; `pip install {name}` brings it" if isinstance(error, ImportError) else ""
            reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            logger.warning("The run goes on without %s (%s)%s.", name, reason, way_out)


@contextmanager
def tracked(
    spec: TrackingSpec | None, *, model: nn.Module, folder: Path, stopwatch: Stopwatch
) -> Iterator[list[TrainerCallback]]:
    """Yield the spec's tracking callbacks, none or one; they must come after `stopwatch`."""
    if spec is None or not spec.wanted:
        yield []
        return
    tracking = Tracking(spec, model=model, folder=folder, stopwatch=stopwatch)
    failed = True
    try:
        yield [tracking]
        failed = False
    finally:
        tracking.close(failed=failed)
