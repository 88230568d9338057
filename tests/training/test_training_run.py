import copy
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cells import METHODS, furthest, log, peft_method, run, saved_weights, schedule
from transformers import AutoModelForCausalLM

from reproduction.data import TokenizedSet
from reproduction.training import (
    Laps,
    MethodSpec,
    NonFiniteLoss,
    OutOfMemory,
    build_adapted,
    build_base,
    load_finished,
    train,
)

RESUMABLE = {"max_steps": 6, "save_steps": 2, "optimizer": "adamw_torch", "learning_rate": 1e-2}


def stop_after(step: int):
    def on_step(done: int, total: int, loss: float) -> None:
        if done == step:
            raise KeyboardInterrupt

    return on_step


def test_the_loss_falls_on_what_is_trained_and_nothing_else_moves(base, method, tokenized, tmp_path):
    before = build_adapted(build_base(base)[0], method, 0)
    frozen = {name: value.clone() for name, value in before.named_parameters() if not value.requires_grad}
    trained = {name: value.clone() for name, value in before.named_parameters() if value.requires_grad}
    model, resources = run(tmp_path, base, method, tokenized, schedule(max_steps=12, learning_rate=0.3))
    losses = [entry["loss"] for entry in log(tmp_path)]
    assert losses[-1] < losses[0]
    assert resources.final_loss == losses[-1]
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    assert not [name for name, value in trained.items() if torch.equal(after[name], value)]


def test_an_interrupted_run_resumes_to_the_weights_of_one_that_never_stopped(base, method, tokenized, tmp_path):
    if method.kind == "peft":  # dropout: the resumed run must go on drawing where the first one stopped
        method = replace(method, arguments={**method.arguments, "lora_dropout": 0.3})
    spec = schedule(**RESUMABLE, epochs=2)
    run(tmp_path / "whole", base, method, tokenized, spec)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", base, method, tokenized, spec, on_step=stop_after(5))
    assert not (tmp_path / "cut" / "adapter").exists()
    steps = []
    run(tmp_path / "cut", base, method, tokenized, spec, on_step=lambda step, total, loss: steps.append((step, total)))
    assert steps == [(5, 6), (6, 6)]
    assert furthest(saved_weights(tmp_path / "cut"), saved_weights(tmp_path / "whole")) == 0
    assert log(tmp_path / "cut") == log(tmp_path / "whole")
    run(tmp_path / "shorter", base, method, tokenized, replace(spec, max_steps=5))
    assert furthest(saved_weights(tmp_path / "shorter"), saved_weights(tmp_path / "whole")) > 0


def flip(path: Path) -> None:
    """Change a byte in the middle; the file keeps its size."""
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


@pytest.mark.parametrize(
    "damage",
    [
        lambda checkpoint: checkpoint.with_name("checksums-4.json").unlink(),
        lambda checkpoint: checkpoint.with_name("checksums-4.json").write_text('{"opt'),
        lambda checkpoint: (checkpoint / "trainer_state.json").write_text('{"global_step"'),
        lambda checkpoint: (checkpoint / "adapter_model.safetensors").unlink(),
        lambda checkpoint: (checkpoint / "rng_state_1.pth").write_bytes(b"a stranger's"),
        lambda checkpoint: flip(checkpoint / "optimizer.pt"),
        lambda checkpoint: flip(checkpoint / "adapter_model.safetensors"),
    ],
    ids=["not recorded", "half a record", "a file cut", "a file gone", "another file", "moments", "weights"],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(damage, base, tokenized, tmp_path, caplog):
    spec = schedule(**RESUMABLE)
    run(tmp_path / "whole", base, METHODS["lora"], tokenized, spec)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", base, METHODS["lora"], tokenized, spec, on_step=stop_after(5))
    damage(tmp_path / "cut" / "checkpoints" / "checkpoint-4")
    (tmp_path / "cut" / "checkpoints" / "checkpoint-4.bak").mkdir()  # a copy that someone made: no checkpoint
    steps = []
    run(tmp_path / "cut", base, METHODS["lora"], tokenized, spec, on_step=lambda step, *_: steps.append(step))
    assert steps == [3, 4, 5, 6]
    assert "checkpoint-4 is damaged and is passed over" in caplog.text
    assert furthest(saved_weights(tmp_path / "cut"), saved_weights(tmp_path / "whole")) == 0


def test_without_checkpoints_an_interrupted_run_starts_anew_and_leaves_none(base, tokenized, tmp_path):
    spec = schedule(**RESUMABLE | {"save_steps": 0})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, base, METHODS["lora"], tokenized, spec, on_step=stop_after(5))
    run(tmp_path, base, METHODS["lora"], tokenized, spec)
    assert [entry["step"] for entry in log(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*"))


def test_a_finished_run_with_checkpoints_is_saved_again_without_training_again(base, tokenized, tmp_path):
    spec = schedule(**RESUMABLE)
    run(tmp_path, base, METHODS["lora"], tokenized, spec)
    before = saved_weights(tmp_path)
    shutil.rmtree(tmp_path / "adapter")  # as if killed between the last step and the save
    steps = []
    _, resources = run(tmp_path, base, METHODS["lora"], tokenized, spec, on_step=lambda *step: steps.append(step))
    assert steps == []
    assert furthest(saved_weights(tmp_path), before) == 0
    assert (resources.steps, resources.steps_timed, resources.step_seconds_median) == (6, 0, None)


def test_what_an_earlier_attempt_saved_is_no_part_of_what_is_saved(base, tokenized, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"a stranger's, or of a killed attempt")
    run(tmp_path, base, METHODS["lora"], tokenized, schedule(max_steps=1))
    assert not (tmp_path / "adapter" / "adapter_model.bin").exists()
    assert load_finished(tmp_path, base, METHODS["lora"])


def test_accumulating_four_micro_batches_is_training_on_their_sum(base, method, tokenized, tmp_path):
    for micro in (4, 1):
        run(tmp_path / str(micro), base, method, tokenized, schedule(batch_size=4, micro_batch_size=micro))
    run(tmp_path / "other", base, method, tokenized, schedule(batch_size=8, micro_batch_size=4))
    reference = saved_weights(tmp_path / "4")
    assert furthest(saved_weights(tmp_path / "1"), reference) < 1e-5
    assert furthest(saved_weights(tmp_path / "other"), reference) > 1e-4


def test_gradient_checkpointing_gives_the_same_weights(base, method, tokenized, tmp_path):
    forwards = {}
    for checkpointing in (False, True):
        model, tokenizer = build_base(base)
        model = build_adapted(model, method, 0)
        start = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
        calls = []
        attention = next(module for name, module in model.named_modules() if name.endswith("layers.0.self_attn"))
        hook = attention.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        folder = tmp_path / str(checkpointing)
        spec = schedule(gradient_checkpointing=checkpointing)
        train(model=model, tokenizer=tokenizer, tokenized=tokenized, spec=spec, base=base, folder=folder)
        hook.remove()
        forwards[checkpointing] = len(calls)
    assert (forwards[False], forwards[True]) == (3, 6)
    assert furthest(saved_weights(tmp_path / "True"), saved_weights(tmp_path / "False")) < 1e-6
    moved = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    assert furthest(moved, start) > 1e-3


def test_the_seed_decides_the_order_of_the_rows_and_the_same_seed_gives_the_same_weights(base, tokenized, tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / folder, base, METHODS["full"], tokenized, schedule(seed=seed))
    assert furthest(saved_weights(tmp_path / "a"), saved_weights(tmp_path / "b")) == 0
    assert furthest(saved_weights(tmp_path / "a"), saved_weights(tmp_path / "c")) > 0


def test_the_loss_mask_decides_what_is_learnt(base, tokenized, tmp_path):
    everything = TokenizedSet([{**row, "labels": row["input_ids"]} for row in tokenized.rows], tokenized.ids)
    run(tmp_path / "response", base, METHODS["full"], tokenized, schedule(max_steps=1))
    run(tmp_path / "all", base, METHODS["full"], everything, schedule(max_steps=1))
    model, _ = build_base(base)
    row = next(row for row in tokenized.rows if len(row["labels"]) > 6)
    logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
    by_hand = [-logits[at - 1, label].item() for at, label in enumerate(row["labels"]) if label != -100]
    one = TokenizedSet([row], ["one"])
    _, resources = run(
        tmp_path / "one", base, METHODS["full"], one, schedule(batch_size=1, micro_batch_size=1, max_steps=1)
    )
    assert resources.final_loss == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    assert log(tmp_path / "all")[0]["loss"] != log(tmp_path / "response")[0]["loss"]


def test_a_loss_that_is_not_finite_stops_the_run_and_nothing_is_saved(base, tokenized, tmp_path):
    model, tokenizer = build_base(base)
    with torch.no_grad():
        model.get_input_embeddings().weight[10:200] = math.inf
    model = build_adapted(model, METHODS["lora"], 0)
    with pytest.raises(NonFiniteLoss, match=r"At step 1 of 3 loss is nan: lower train\.learning_rate \(0\.5\)"):
        train(model=model, tokenizer=tokenizer, tokenized=tokenized, spec=schedule(), base=base, folder=tmp_path)
    assert not (tmp_path / "adapter").exists()
    assert log(tmp_path) == []


def test_a_gradient_that_is_not_finite_in_the_last_step_is_not_saved_either(base, tokenized, tmp_path):
    model, tokenizer = build_base(base)
    model = build_adapted(model, METHODS["full"], 0)
    model.lm_head.weight.register_hook(lambda gradient: gradient * math.nan)
    spec = schedule(max_steps=1)
    with pytest.raises(NonFiniteLoss, match="At step 1 of 1 grad_norm is nan"):
        train(model=model, tokenizer=tokenizer, tokenized=tokenized, spec=spec, base=base, folder=tmp_path)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_running_out_of_memory_names_what_to_lower(error, base, tokenized, tmp_path):
    def exhaust(*_):
        raise error

    model, tokenizer = build_base(base)
    model = build_adapted(model, METHODS["lora"], 0)
    model.register_forward_pre_hook(exhaust)
    spec = schedule(gradient_checkpointing=True)
    with pytest.raises(OutOfMemory, match=r"micro_batch_size=8: lower it \(the effective batch stays 8\)") as caught:
        train(model=model, tokenizer=tokenizer, tokenized=tokenized, spec=spec, base=base, folder=tmp_path)
    assert (caught.value.rows, caught.value.checkpointing) == (8, True)
    spec = schedule(micro_batch_size=4)
    with pytest.raises(OutOfMemory) as caught:
        train(model=model, tokenizer=tokenizer, tokenized=tokenized, spec=spec, base=base, folder=tmp_path)
    assert (caught.value.rows, caught.value.checkpointing) == (4, False)


def test_another_runtime_error_stays_what_it_is(base, tokenized, tmp_path):
    def fail(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model, tokenizer = build_base(base)
    model = build_adapted(model, METHODS["lora"], 0)
    model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        train(model=model, tokenizer=tokenizer, tokenized=tokenized, spec=schedule(), base=base, folder=tmp_path)
    assert type(caught.value) is RuntimeError


def test_a_run_that_could_not_train_is_refused_before_it_starts(base, tokenized, tmp_path):
    none = MethodSpec(name="base", label="base", kind="none")
    with pytest.raises(ValueError, match="No parameter of the model requires gradients"):
        run(tmp_path, base, none, tokenized, schedule())
    with pytest.raises(ValueError, match=r"train\.learning_rate is null"):
        run(tmp_path, base, METHODS["lora"], tokenized, schedule(learning_rate=None))
    with pytest.raises(ValueError, match=r"in 16 bits.*model\.dtype=float32"):
        run(tmp_path, replace(base, dtype="bfloat16"), METHODS["full"], tokenized, schedule())
    assert not list(tmp_path.iterdir())


def test_a_bfloat16_base_trains_float32_adapters_and_generates_afterwards(base, tokenized, tmp_path):
    model, _ = run(tmp_path, replace(base, dtype="bfloat16"), METHODS["lora"], tokenized, schedule(max_steps=12))
    losses = [entry["loss"] for entry in log(tmp_path)]
    assert losses[-1] < losses[0]
    assert {weight.dtype for weight in saved_weights(tmp_path).values()} == {torch.float32}
    assert model(input_ids=torch.tensor([[5, 6]])).logits.dtype == torch.bfloat16


def test_training_leaves_a_model_ready_to_generate_and_a_tokenizer_as_it_was(base, tokenized, tokenizer, tmp_path):
    model, _ = build_base(base)
    model = build_adapted(model, METHODS["lora"], 0)
    padding_left = copy.deepcopy(tokenizer)
    padding_left.padding_side = "left"
    spec = schedule(gradient_checkpointing=True, max_steps=1)
    train(model=model, tokenizer=padding_left, tokenized=tokenized, spec=spec, base=base, folder=tmp_path)
    assert padding_left.padding_side == "left"
    assert not model.training
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert model.config.use_cache
    assert model(input_ids=torch.tensor([[5, 6]])).past_key_values is not None
    loaded, _ = load_finished(tmp_path, base, METHODS["lora"])
    assert torch.equal(loaded(input_ids=torch.tensor([[5]])).logits, model(input_ids=torch.tensor([[5]])).logits)


def test_each_step_is_told_with_its_number_the_total_and_its_loss(base, tokenized, tmp_path):
    told = []
    run(tmp_path, base, METHODS["lora"], tokenized, schedule(max_steps=None), on_step=lambda *step: told.append(step))
    assert [step[:2] for step in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [step[2] for step in told] == [entry["loss"] for entry in log(tmp_path)]


def test_the_figures_count_what_is_there(base, tokenized, tmp_path):
    arguments = {"r": 4, "num_clusters": 2, "rank_boost": 2}
    model, resources = run(tmp_path, base, peft_method("x", "IDLORA", **arguments), tokenized, schedule(max_steps=8))
    routers = [value for name, value in model.named_parameters() if "router" in name]
    # k·r·in of the seven targets of both layers: six read 32 numbers, the down projection 64.
    assert resources.frozen_copies == 2 * 2 * 4 * (6 * 32 + 64)
    assert resources.parameters_router == sum(value.numel() for value in routers) > 0
    assert resources.parameters_trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    base_size = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(base.path_or_id).parameters())
    assert resources.parameters_total == base_size + resources.parameters_trainable
    assert resources.adapter_bytes == (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert (resources.steps, resources.steps_timed) == (8, 5)
    assert 0 < resources.step_seconds_median < resources.train_seconds
    assert resources.step_seconds_iqr >= 0
    assert resources.peak_memory_bytes > 50e6
    assert resources.data == tokenized.report()
    assert (resources.device, resources.threads, resources.processes) == ("cpu", torch.get_num_threads(), 1)
    tokens_a_step = resources.data["tokens"] / 4
    assert resources.tokens_per_second == pytest.approx(tokens_a_step / resources.step_seconds_median, rel=0.5)


def test_the_first_laps_of_a_process_have_its_imports_and_others_begin_when_they_are_made(monkeypatch):
    monkeypatch.setattr(Laps, "_imports", 1.5)
    first, second = Laps(), Laps()
    assert first.seconds == {"imports": 1.5}
    time.sleep(0.02)
    second.end("base")
    second.end("data")
    assert list(second.seconds) == ["base", "data"]
    assert second.seconds["base"] >= 0.02 > second.seconds["data"]
