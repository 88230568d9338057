"""Training: trained parameters, resuming, errors that stop it, and resource figures."""

import copy
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cells import METHODS, furthest, log, logits, peft_method, run, saved_weights, schedule
from transformers import AutoModelForCausalLM

from reproduction.data import TokenizedSet
from reproduction.training import (
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


def adapted(base, name):
    model, tokenizer = build_base(base)
    return build_adapted(model, METHODS[name], 0), tokenizer


def test_the_loss_falls_nothing_else_moves_and_what_was_trained_is_what_is_loaded(base, method, tokenized, tmp_path):
    before = build_adapted(build_base(base)[0], method, 0)
    start = {name: (value.requires_grad, value.clone()) for name, value in before.named_parameters()}
    told = []
    spec = schedule(max_steps=12, learning_rate=0.3)
    model, resources = run(tmp_path, base, method, tokenized, spec, on_step=lambda *step: told.append(step))
    losses = [entry["loss"] for entry in log(tmp_path)]
    assert losses[-1] < losses[0]
    assert resources.final_loss == losses[-1]
    assert told == [(step, 12, loss) for step, loss in enumerate(losses, start=1)]
    for name, value in model.named_parameters():
        trained, first = start[name]
        assert torch.equal(value, first) != trained, name
    torch.manual_seed(99)
    loaded, tokenizer = load_finished(tmp_path, base, method)
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(loaded), logits(before))
    assert not loaded.training
    assert tokenizer.pad_token_id == 0


@pytest.mark.parametrize("name", ["full", "lora", "idlora"])
def test_an_interrupted_run_resumes_to_the_weights_of_one_that_never_stopped(name, base, tokenized, tmp_path):
    method = METHODS[name]
    if method.kind == "peft":  # with dropout, the resumed run must continue the random stream
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
    if method.kind != "peft":
        return
    # As after a kill between the last step and the save: the weights are saved again without training.
    before = saved_weights(tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "adapter")
    steps.clear()
    _, resources = run(tmp_path / "cut", base, method, tokenized, spec, on_step=lambda *step: steps.append(step))
    assert steps == []
    assert furthest(saved_weights(tmp_path / "cut"), before) == 0
    assert (resources.steps, resources.steps_timed, resources.step_seconds_median) == (6, 0, None)


def test_without_checkpoints_an_interrupted_run_starts_anew_and_leaves_none(base, tokenized, tmp_path):
    spec = schedule(**RESUMABLE | {"save_steps": 0})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, base, METHODS["lora"], tokenized, spec, on_step=stop_after(5))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"of a killed attempt")
    run(tmp_path, base, METHODS["lora"], tokenized, spec)
    assert [entry["step"] for entry in log(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*"))
    assert not (tmp_path / "adapter" / "adapter_model.bin").exists()
    assert load_finished(tmp_path, base, METHODS["lora"])


def test_accumulation_and_gradient_checkpointing_change_no_weights_and_the_batch_and_the_seed_do(
    base, tokenized, tmp_path
):
    def trained(name, **changes):
        run(tmp_path / name, base, METHODS["idlora"], tokenized, schedule(**{"batch_size": 4} | changes))
        return saved_weights(tmp_path / name)

    reference = trained("reference", micro_batch_size=4)
    assert furthest(trained("again", micro_batch_size=4), reference) == 0
    assert furthest(trained("accumulated", micro_batch_size=1), reference) < 1e-5
    assert furthest(trained("other batch", batch_size=8, micro_batch_size=4), reference) > 1e-4
    assert furthest(trained("other seed", micro_batch_size=4, seed=1), reference) > 1e-4
    model, tokenizer = adapted(base, "idlora")
    calls = []
    model.get_base_model().model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    spec = schedule(batch_size=4, micro_batch_size=4, gradient_checkpointing=True)
    folder = tmp_path / "checkpointed"
    train(model=model, tokenizer=tokenizer, tokenized=tokenized, spec=spec, base=base, folder=folder)
    assert len(calls) == 2 * 3
    assert furthest(saved_weights(folder), reference) < 1e-6


def test_the_loss_is_the_mean_over_the_response_tokens(base, tokenized, tmp_path):
    row = next(row for row in tokenized.rows if len(row["labels"]) > 6)
    found = build_base(base)[0](input_ids=torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
    by_hand = [-found[at - 1, label].item() for at, label in enumerate(row["labels"]) if label != -100]
    assert len(by_hand) < len(row["labels"])
    spec = schedule(batch_size=1, micro_batch_size=1, max_steps=1)
    _, resources = run(tmp_path, base, METHODS["full"], TokenizedSet([row], ["one"]), spec)
    assert resources.final_loss == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)


@pytest.mark.parametrize(("name", "wrong"), [("lora", "loss"), ("full", "grad_norm")])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run_and_nothing_is_saved(
    name, wrong, base, tokenized, tmp_path
):
    model, tokenizer = adapted(base, name)
    if wrong == "loss":
        with torch.no_grad():
            model.get_input_embeddings().weight[10:200] = math.inf
    else:
        model.lm_head.weight.register_hook(lambda gradient: gradient * math.nan)
    spec = schedule(max_steps=1)
    with pytest.raises(NonFiniteLoss, match=rf"At step 1 of 1 {wrong} is nan: lower train\.learning_rate \(0\.5\)"):
        train(model=model, tokenizer=tokenizer, tokenized=tokenized, spec=spec, base=base, folder=tmp_path)
    assert not {"adapter", "model", "saved.json"} & {path.name for path in tmp_path.iterdir()}
    assert log(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "checkpointing"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_running_out_of_memory_names_what_to_lower_and_another_error_stays_what_it_is(
    error, checkpointing, base, tokenized, tmp_path
):
    def exhaust(*_):
        raise error

    model, tokenizer = adapted(base, "lora")
    model.register_forward_pre_hook(exhaust)
    spec = schedule(micro_batch_size=4, gradient_checkpointing=checkpointing)
    with pytest.raises(RuntimeError) as caught:
        train(model=model, tokenizer=tokenizer, tokenized=tokenized, spec=spec, base=base, folder=tmp_path)
    if "mat1" in str(error):
        assert type(caught.value) is RuntimeError
    else:
        assert isinstance(caught.value, OutOfMemory)
        assert "train.micro_batch_size=4: lower it (the effective batch stays 8)" in str(caught.value)
        assert (caught.value.rows, caught.value.checkpointing) == (4, checkpointing)


def test_a_run_that_could_not_train_is_refused_before_it_starts(base, tokenized, tmp_path):
    none = MethodSpec(name="base", label="base", kind="none")
    with pytest.raises(ValueError, match="No parameter of the model requires gradients"):
        run(tmp_path, base, none, tokenized, schedule())
    with pytest.raises(ValueError, match=r"train\.learning_rate is null"):
        run(tmp_path, base, METHODS["lora"], tokenized, schedule(learning_rate=None))
    with pytest.raises(ValueError, match=r"in 16 bits.*model\.dtype=float32"):
        run(tmp_path, replace(base, dtype="bfloat16"), METHODS["full"], tokenized, schedule())
    assert not list(tmp_path.iterdir())


def test_a_bfloat16_base_trains_float32_adapters_and_is_left_ready_to_generate(base, tokenized, tokenizer, tmp_path):
    base = replace(base, dtype="bfloat16")
    model, _ = adapted(base, "lora")
    padding_left = copy.deepcopy(tokenizer)
    padding_left.padding_side = "left"
    spec = schedule(max_steps=12, gradient_checkpointing=True)
    train(model=model, tokenizer=padding_left, tokenized=tokenized, spec=spec, base=base, folder=tmp_path)
    losses = [entry["loss"] for entry in log(tmp_path)]
    assert losses[-1] < losses[0]
    assert {weight.dtype for weight in saved_weights(tmp_path).values()} == {torch.float32}
    found = model(input_ids=torch.tensor([[5, 6]]))
    assert found.logits.dtype == torch.bfloat16
    assert found.past_key_values is not None
    assert padding_left.padding_side == "left"
    assert not model.training
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_the_figures_count_what_is_there(base, tokenized, tmp_path):
    method = peft_method("x", "IDLORA", r=4, num_clusters=2, rank_boost=2)
    model, resources = run(tmp_path, base, method, tokenized, schedule(max_steps=8))
    routers = [value for name, value in model.named_parameters() if "router" in name]
    # k·r·in of the seven targets of both layers: in is 32 for six, 64 for the down projection.
    assert resources.frozen_copies == 2 * 2 * 4 * (6 * 32 + 64)
    assert resources.parameters_router == sum(value.numel() for value in routers) > 0
    assert resources.parameters_trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    base_size = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(base.path_or_id).parameters())
    assert resources.parameters_total == base_size + resources.parameters_trainable
    assert resources.adapter_bytes == (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert (resources.steps, resources.steps_timed) == (8, 5)
    assert 0 <= resources.step_seconds_iqr < resources.step_seconds_max
    assert 0 < resources.step_seconds_median < resources.train_seconds
    assert 50e6 < resources.peak_memory_bytes < 50e9
    assert resources.data == tokenized.report()
    assert (resources.device, resources.threads, resources.processes) == ("cpu", torch.get_num_threads(), 1)
    tokens_a_step = resources.data["tokens"] / 4
    assert resources.tokens_per_second == pytest.approx(tokens_a_step / resources.step_seconds_median, rel=0.5)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "learnt"), [("full", 0.5), ("idlora", 0.02)])
def test_a_small_model_learns_from_real_gsm8k_rows(name, learnt, base, tokenizer, real_data, tmp_path: Path):
    from reproduction.training import DataSpec, build_data

    training, held = build_data(
        DataSpec(name="gsm8k", max_length=2048, limit=32, validation_rows=8), tokenizer, root=real_data
    )
    assert (len(training), len(held)) == (32, 8)
    spec = schedule(max_steps=10, learning_rate=3e-2, optimizer="adamw_torch", batch_size=4, micro_batch_size=2)
    _, resources = run(tmp_path, base, METHODS[name], training, spec)
    losses = [entry["loss"] for entry in log(tmp_path)]
    assert losses[-1] < losses[0] - learnt
    assert resources.data["truncated"] == 0
