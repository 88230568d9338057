"""Training of a model on a tokenized set by a schedule, into a folder with the weights and the figures.

folder/checkpoints/     during the run, if the schedule has checkpoints: the last two
folder/train_log.jsonl  one line a step: step, epoch, loss, grad_norm, learning_rate
folder/adapter|model/   the trained weights
folder/saved.json       the SHA-256 of their files
"""

import copy
import functools
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reproduction.data import TokenizedSet
from reproduction.records.files import one_sentence
from reproduction.training import launching, telemetry
from reproduction.training.adapters import FULL, SAVED_FILE, record_base, record_saved
from reproduction.training.batches import Collator, Packing, sampler
from reproduction.training.checkpoints import first_line, last_whole_checkpoint, save_aside
from reproduction.training.passes import Passes, count_tokens, is_out_of_memory
from reproduction.training.spec import ModelSpec, TrackingSpec, TrainSpec
from reproduction.training.telemetry import Resources, Stopwatch
from reproduction.training.tracking import tracked

# transformers 5.17 has only the old name, and 5.23 warns about it.
CHECKPOINTING = (
    "activation_checkpointing" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient_checkpointing"
)

PACKS_ON = ("cuda",)
"""Device types on which `Passes` replace the Trainer's passes."""


class TrainingFailed(RuntimeError):
    """A training run cannot continue; the message gives the reason and the remedy."""


class OutOfMemory(TrainingFailed):
    """The device has too little memory for a micro-batch of `rows`, with or without `checkpointing`."""

    def __init__(self, sentence: str, rows: int, checkpointing: bool):
        super().__init__(sentence, rows, checkpointing)  # all arguments, since it is pickled between ranks
        self.sentence, self.rows, self.checkpointing = sentence, rows, checkpointing

    def __str__(self) -> str:
        return self.sentence


class NonFiniteLoss(TrainingFailed):
    """The loss or the gradient became infinite or NaN."""


def train(
    *,
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    tokenized: TokenizedSet,
    spec: TrainSpec,
    base: ModelSpec,
    folder: Path | str,
    on_step: Callable[[int, int, float], None] | None = None,
    tracking: TrackingSpec | None = None,
) -> Resources:
    """Train the parameters of `model` that require gradients, and save them.

    It resumes from the last intact checkpoint in the folder and ends with the same weights as an uninterrupted run,
    provided that the passes have as many rows as before (dropout depends on that). It uses the GPU if there is one, and
    all processes of a launch. It leaves the model in evaluation mode.

    Args:
        model: the model from `build_adapted`.
        tokenizer: source of the padding token.
        tokenized: the training set.
        spec: the schedule.
        base: spec of the base model, recorded beside an adapter.
        folder: the run's folder.
        on_step: called after each step with its number, the total number of steps, and its loss.
        tracking: trackers of the run.

    Raises:
        ValueError: nothing requires gradients; no learning rate; an effective batch that cannot be divided; weights
            whose low precision would round the optimiser's updates away.
        OutOfMemory, NonFiniteLoss: the run cannot continue; nothing is saved after its last checkpoint.
    """
    folder = Path(folder)
    _require_trainable(model, spec)
    launching.join(deepspeed=spec.deepspeed is not None)
    arguments = _arguments(spec, folder / "checkpoints", bf16=_has_dtype(model.parameters(), torch.bfloat16))
    if "position_ids" in tokenized.rows[0]:
        arguments.include_num_input_tokens_seen = "all"  # packed rows have no mask, and hardly any padding
    rows = arguments.per_device_train_batch_size
    counts = telemetry.count_parameters(model)
    stopwatch = Stopwatch(on_step)
    use_cache, model.config.use_cache = model.config.use_cache, False  # with a cache packed examples mix
    with _memory_errors(rows, spec), tracked(tracking, model=model, folder=folder, stopwatch=stopwatch) as trackers:
        trainer = StepTrainer(
            model=model,
            args=arguments,
            train_dataset=tokenized.rows,
            data_collator=_collator(tokenizer),
            callbacks=[StepLog(folder / "train_log.jsonl"), stopwatch, StopWhereFinished(), *trackers],
        )
        trainer.order = sampler(tokenized, batch_size=spec.batch_size, seed=spec.seed, by_length=spec.group_by_length)
        trainer.remove_callback(PrinterCallback)
        if arguments.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(arguments.device)
        packing = packing_of(trainer.model, tokenized, spec) if trainer.model_accepts_loss_kwargs else None
        if packing is not None:
            trainer.use_packed_passes(packing)
        resume = last_whole_checkpoint(folder / "checkpoints")
        with suppress(AlreadyFinished):
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        passes = trainer.passes.close() if packing is not None else "padded"
        saved = _save(trainer, folder, base)

    # Undo the Trainer's changes to the model: training mode, no KV cache, checkpointing, an autocast around forward.
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    if spec.gradient_checkpointing is True:
        getattr(model, f"{CHECKPOINTING}_disable")()
    model.config.use_cache = use_cache
    model.eval()
    return Resources(
        steps=trainer.state.global_step,
        **stopwatch.figures(),
        peak_memory_bytes=telemetry.peak_memory_bytes(arguments.device),
        adapter_bytes=telemetry.weight_bytes(saved),
        **counts,
        selection_seconds=telemetry.selection_seconds(model),
        final_loss=next(entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry),
        data=tokenized.report(),
        threads=torch.get_num_threads(),
        device=telemetry.device_name(arguments.device),
        processes=arguments.world_size,
        micro_batch_size=rows,
        gradient_checkpointing=spec.gradient_checkpointing is True,
        passes=passes,
        recording_seconds=trainer.passes.recording_seconds if trainer.passes else 0.0,
        accumulation=arguments.gradient_accumulation_steps,
    )


def packing_of(model: PreTrainedModel | PeftModel, tokenized: TokenizedSet, spec: TrainSpec) -> Packing | None:
    """Return the layout of packed passes for a model on its device; None if the Trainer's passes train it."""
    if next(model.parameters()).device.type not in PACKS_ON or spec.deepspeed is not None or spec.liger_kernel:
        return None
    packing = Packing.of(tokenized, batch_size=spec.batch_size, by_length=spec.group_by_length)
    bf16 = _has_dtype(model.parameters(), torch.bfloat16)
    fits = Passes(model, bf16=bf16, graphs=False).fits(packing.width)
    return packing if launching.min_over_ranks(fits) else None


class StepTrainer(Trainer):
    """Trainer with this project's order of rows, atomic checkpoints and, on GPUs, packed passes."""

    order: Sampler[int]
    passes: Passes | None = None
    _largest: tuple[int, int] | None = None

    def use_packed_passes(self, packing: Packing) -> None:
        """Replace the Trainer's passes."""
        args = self.args
        passes = Passes(self.model, bf16=args.bf16, graphs=not getattr(args, CHECKPOINTING))
        if args.world_size > 1:
            # No DDP wrapper: DDP exchanges gradients within the backward pass, which is a CUDA graph.
            self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)
            passes.broadcast()
        args.include_num_input_tokens_seen = "no"  # counting waits for the GPU at every pass
        self.passes, self.data_collator.width = passes, packing.width
        self._largest = packing.rows(args.per_device_train_batch_size), packing.width
        self._tokens = torch.zeros((), dtype=torch.int64, device=args.device)

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        if self.passes is None:
            return super().training_step(model, inputs, num_items_in_batch)
        if not model.training:
            model.train()
        if self._largest is not None:  # only now, since loading a checkpoint may move tensors
            self.passes.prepare(*self._largest)
            self._largest = None
        inputs = self._prepare_inputs(inputs)
        self._tokens += count_tokens(inputs["position_ids"])
        loss = self.passes(inputs, num_items_in_batch)
        if self.accelerator.sync_gradients and self.args.world_size > 1:
            self.passes.sum_gradients()
        return loss * self.args.world_size  # the Trainer logs the mean over the processes; this is a sum

    def log(self, logs, *arguments, **options) -> None:
        if self.passes is not None:
            if self.args.world_size > 1:
                torch.distributed.all_reduce(self._tokens)
            self.state.num_input_tokens_seen += int(self._tokens)
            self._tokens.zero_()
        super().log(logs, *arguments, **options)

    def _get_train_sampler(self, train_dataset=None) -> Sampler[int]:
        return self.order

    def _save_checkpoint(self, model, trial) -> None:
        if self.state.global_step >= self.state.max_steps and not isinstance(self.model, PeftModel):
            return  # the model is saved next; writing optimiser states of billions of parameters takes minutes
        folder = Path(self.args.output_dir)

        def write(aside: Path) -> None:
            self.args.output_dir = str(aside)
            try:
                super(StepTrainer, self)._save_checkpoint(model, trial)
            finally:
                self.args.output_dir = str(folder)

        save_aside(folder, self.state.global_step, write=write, first=self.is_world_process_zero())


class StepLog(TrainerCallback):
    """Callback that writes one JSON line a step, and stops the run at a loss or gradient that is not finite.

    A resumed run first rewrites the file from the checkpoint's history, so that no step occurs twice.
    """

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            lines = [self._line(entry, entry["step"]) for entry in state.log_history if "loss" in entry]
            with one_sentence("write", self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text("".join(lines), encoding="utf-8")

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" not in logs:
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise NonFiniteLoss(
                    f"At step {state.global_step} of {state.max_steps} {name} is {logs[name]}: lower "
                    f"train.learning_rate ({args.learning_rate:g}) or raise train.warmup_steps ({args.warmup_steps})."
                )
        if state.is_world_process_zero:
            with one_sentence("write", self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(self._line(logs, state.global_step))

    @staticmethod
    def _line(logs: Mapping[str, float], step: int) -> str:
        logged = {name: logs[name] for name in ("epoch", "loss", "grad_norm", "learning_rate") if name in logs}
        return json.dumps({"step": step, **logged}) + "\n"


class AlreadyFinished(Exception):
    """The resumed checkpoint is that of the last step: no training is left."""


class StopWhereFinished(TrainerCallback):
    """Callback that ends a run resumed from its last step; the Trainer alone takes one more step."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            raise AlreadyFinished


def _require_trainable(model: torch.nn.Module, spec: TrainSpec) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("No parameter of the model requires gradients: an untuned base is evaluated, not trained.")
    if spec.learning_rate is None:
        raise ValueError("train.learning_rate is null and there is something to train: give it a number.")
    if spec.deepspeed is None and _has_dtype(trained, torch.bfloat16, torch.float16):
        raise ValueError(
            "Trained parameters are in 16 bits, where an optimiser's small updates round to nothing: set "
            "model.dtype=float32, or train.deepspeed to a config, which keeps a float32 copy."
        )


def _has_dtype(parameters: Iterable[torch.nn.Parameter], *dtypes: torch.dtype) -> bool:
    return any(parameter.dtype in dtypes for parameter in parameters)


def _arguments(spec: TrainSpec, checkpoints: Path, *, bf16: bool) -> TrainingArguments:
    processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    on_cpu = not torch.cuda.is_available()
    micro_batch, accumulation = spec.division(processes)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        seed=spec.seed,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=spec.epochs,
        max_steps=spec.max_steps or -1,
        learning_rate=spec.learning_rate,
        lr_scheduler_type=spec.lr_scheduler,
        warmup_steps=spec.warmup_steps,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        optim=spec.optimizer,
        bf16=bf16,
        **{CHECKPOINTING: spec.gradient_checkpointing is True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": False}},
        save_strategy="steps" if spec.save_steps else "no",
        save_steps=spec.save_steps or 1,
        logging_steps=1,  # a loss that is not finite then stops the run at once
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
        ddp_find_unused_parameters=False,
        # Buffers are equal constants in every process; a layer would check its pivots again after each broadcast.
        ddp_broadcast_buffers=False,
        use_liger_kernel=spec.liger_kernel,
        deepspeed=str(spec.deepspeed) if isinstance(spec.deepspeed, Path) else spec.deepspeed,
        # Without these two, several CPU processes train independently and never exchange gradients.
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and processes > 1 else None,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process, one GPU: the Trainer otherwise splits each micro-batch over all GPUs
    return arguments


def _collator(tokenizer: PreTrainedTokenizerBase) -> Collator:
    padded_right = copy.copy(tokenizer)  # a copy: generation may use the same object and pads on the left
    padded_right.padding_side = "right"
    return Collator(padded_right)


@contextmanager
def _memory_errors(rows: int, spec: TrainSpec) -> Iterator[None]:
    """Convert out-of-memory errors to `OutOfMemory`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"Out of memory with train.micro_batch_size={rows}: lower it (the effective batch stays "
            f"{spec.batch_size}), set train.gradient_checkpointing=true, or use more devices "
            f"({first_line(error)}).",
            rows,
            spec.gradient_checkpointing is True,
        ) from error


def _save(trainer: Trainer, folder: Path, base: ModelSpec) -> Path:
    is_adapter = isinstance(trainer.model, PeftModel)
    saved, first = folder / ("adapter" if is_adapter else "model"), trainer.is_world_process_zero()
    try:
        if first:  # left by an attempt killed after its training
            (folder / SAVED_FILE).unlink(missing_ok=True)
            shutil.rmtree(saved, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        trainer.save_model(str(saved))  # the Trainer's method gathers DeepSpeed's shards
        if first:
            (saved / "training_args.bin").unlink(missing_ok=True)  # a pickle of this machine's settings
            if is_adapter:
                record_base(saved, base)
            record_saved(saved, trainer.model.active_peft_config.peft_type.value if is_adapter else FULL)
        trainer.accelerator.wait_for_everyone()
    except (OSError, SafetensorError) as error:
        raise TrainingFailed(
            f"What was trained could not be written to {folder} ({first_line(error)}): make room; the same command "
            "goes on from the last checkpoint."
        ) from error
    return saved
