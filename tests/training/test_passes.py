"""Batches and packed passes: they give the loss and the gradient of padded passes for every method."""

import logging
from dataclasses import replace

import pytest
import torch
from cells import METHODS, furthest, log, run, saved_weights, schedule
from torch import nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from reproduction.data import TokenizedSet, pack
from reproduction.training import build_adapted, build_base, trainer
from reproduction.training.batches import Collator, Packing, sampler
from reproduction.training.passes import Passes, count_tokens, is_out_of_memory
from reproduction.training.trainer import packing_of

WIDTH = 48

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def packs_here(monkeypatch):
    """Use packed passes on the CPU, where CUDA graphs are unavailable."""
    monkeypatch.setattr(trainer, "PACKS_ON", ("cuda", "cpu"))


@pytest.fixture
def lora(base):
    return build_adapted(build_base(base)[0], METHODS["lora"], 0)


def with_dropout(name: str, share: float):
    method = METHODS[name]
    return replace(method, arguments={**method.arguments, "lora_dropout": share})


def losses(folder) -> list[float]:
    return [entry["loss"] for entry in log(folder)]


def stop_at_five(done: int, total: int, loss: float) -> None:
    if done == 5:
        raise KeyboardInterrupt


def of_lengths(*lengths: int, row_length: int | None = None) -> TokenizedSet:
    rows = [{"input_ids": [5] * length, "labels": [5] * length} for length in lengths]
    return TokenizedSet(rows=rows, ids=[str(index) for index in range(len(rows))], row_length=row_length)


def off_zero(model: nn.Module) -> None:
    """Move B away from zero, where the gradient of A vanishes."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)


@pytest.mark.parametrize(
    ("batch_size", "most", "processes", "expected"),
    [
        (32, 4, 1, (4, 8)),
        (32, 4, 16, (2, 1)),  # fewer rows than the largest micro-batch
        (32, 5, 1, (4, 8)),  # the largest even divisor
        (30, 4, 2, (3, 5)),
        (32, "auto", 2, (16, 1)),
    ],
)
def test_a_step_has_the_rows_that_the_config_says_however_it_is_cut(batch_size, most, processes, expected):
    assert schedule(batch_size=batch_size, micro_batch_size=most).division(processes) == expected


@pytest.mark.parametrize(("batch_size", "processes"), [(32, 3), (2, 4)])
def test_a_batch_that_the_processes_cannot_share_is_refused(batch_size, processes):
    with pytest.raises(ValueError, match=rf"batch_size={batch_size} cannot be shared evenly by {processes}"):
        schedule(batch_size=batch_size).division(processes)


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize(("rows", "whole"), [(27, 24), (8, 8), (5, 5)])
def test_an_epoch_is_whole_steps_and_a_set_smaller_than_one_is_a_step(rows, whole, by_length):
    order = sampler(of_lengths(*[1 + n % 7 for n in range(rows)]), batch_size=8, seed=3, by_length=by_length)
    indices = list(order)
    assert len(order) == len(indices) == len(set(indices)) == whole
    assert set(indices) <= set(range(rows))


def test_rows_of_like_length_are_neighbours_in_a_step_and_each_epoch_and_seed_has_its_own_steps():
    lengths = [1 + 7 * n % 31 for n in range(40)]

    def steps(seed, epoch):
        order = sampler(of_lengths(*lengths), batch_size=8, seed=seed, by_length=True)
        order.set_epoch(epoch)
        indices = list(order)
        return [indices[start : start + 8] for start in range(0, 40, 8)]

    for step in steps(0, 0):
        assert [lengths[row] for row in step] == sorted((lengths[row] for row in step), reverse=True)
    assert steps(0, 0) == steps(0, 0)
    assert [sorted(step) for step in steps(0, 0)] != [sorted(step) for step in steps(0, 1)]
    assert [sorted(step) for step in steps(0, 0)] != [sorted(step) for step in steps(1, 0)]


def test_rows_are_padded_on_the_right_and_padding_is_neither_read_nor_learnt(tokenizer):
    batch = Collator(tokenizer)([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 0, 0]],
        "labels": [[-100, 6, 7], [8, -100, -100]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }
    packed = [
        {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, 6, 7, -100, 9], "position_ids": [0, 1, 2, 0, 1]},
        {"input_ids": [4, 4, 4], "labels": [4, 4, 4], "position_ids": [0, 0, 1]},
    ]
    assert {name: tensor.tolist() for name, tensor in Collator(tokenizer)(packed).items()} == {
        "input_ids": [[5, 6, 7, 8, 9], [4, 4, 4, 0, 0]],
        "labels": [[-100, 6, 7, -100, 9], [4, 4, 4, -100, -100]],
        "position_ids": [[0, 1, 2, 0, 1], [0, 0, 1, 0, 0]],
    }
    # The longest are placed first.
    assert Collator(tokenizer, width=32)(of_lengths(10, 10, 22, 22).rows)["input_ids"].shape == (2, 32)
    assert Collator(tokenizer, width=64)(of_lengths(10).rows)["input_ids"].shape == (1, 64)


def test_the_rows_of_a_pass_follow_from_the_lengths_and_from_how_they_are_dealt():
    def rows(tokenized: TokenizedSet, *examples: int, by_length: bool = False) -> tuple[int, ...]:
        packing = Packing.of(tokenized, batch_size=8, by_length=by_length)
        return packing.width, *(packing.rows(each) for each in examples)

    assert rows(of_lengths(*[8] * 100), 8, 1) == (16, 4, 1)
    assert rows(of_lengths(*[30] * 3), 8, 1) == (32, 3, 1)
    assert rows(of_lengths(40, 48, row_length=64), 2) == (64, 2)
    few = of_lengths(*[30] * 5, *[2] * 95)
    assert (rows(few, 2, by_length=True), rows(few, 2)) == ((32, 2), (32, 1))  # the longest two of eight, or any two
    assert rows(of_lengths(*[30] * 20, *[4] * 20), 4) == (32, 4)  # one of the random steps has four long examples


def test_packed_passes_have_the_loss_and_the_gradient_of_padded_ones(base, method, tokenized, tokenizer):
    rows = tokenized.rows[:9]
    padded, packed = Collator(tokenizer)(rows), Collator(tokenizer, width=WIDTH)(rows)
    assert len(packed["input_ids"]) < len(rows)
    assert (
        packed["input_ids"].numel() > int(count_tokens(packed["position_ids"])) == int(padded["attention_mask"].sum())
    )
    model = build_adapted(build_base(base)[0], method, 0)
    off_zero(model)
    items = (padded["labels"] != -100).sum()
    theirs = model(**padded, use_cache=False, num_items_in_batch=items).loss
    theirs.backward()
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    wanted = {name: each.grad.clone() for name, each in trained.items()}
    model.zero_grad()
    ours = Passes(model, bf16=False, graphs=False)(packed, items)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    scale = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert scale > 1e-3
    assert furthest({name: each.grad for name, each in trained.items()}, wanted) <= 1e-5 * scale


def test_how_a_set_will_be_packed_is_known_before_it_is_trained(lora, tokenized, packs_here):
    spec = schedule(batch_size=8, micro_batch_size="auto")
    assert packing_of(lora, tokenized, spec) == Packing.of(tokenized, batch_size=8, by_length=False)
    assert packing_of(lora, tokenized, replace(spec, deepspeed={})) is None
    assert packing_of(lora, tokenized, replace(spec, liger_kernel=True)) is None
    trainer.PACKS_ON = ()  # put back by the fixture
    assert packing_of(lora, tokenized, spec) is None


@pytest.mark.parametrize("bf16", [False, True])
def test_a_model_whose_loss_is_another_is_told_from_one_that_fits(base, bf16, monkeypatch):
    model = build_adapted(build_base(base)[0], with_dropout("lora", 0.5), 0).train()
    off_zero(model)
    passes, inner = Passes(model, bf16=bf16, graphs=False), model.get_base_model()
    plain, forward = inner.loss_function, inner.forward
    model.config.sliding_window = WIDTH
    assert passes.fits(WIDTH)
    assert model.training
    for setting, value in (("sliding_window", WIDTH - 1), ("_attn_implementation", "eager")):
        with monkeypatch.context() as changed:
            changed.setattr(model.config, setting, value)
            assert not passes.fits(WIDTH)
    for factor in (0.5, 2):
        with monkeypatch.context() as changed:
            changed.setattr(inner, "loss_function", lambda factor=factor, **given: factor * plain(**given))
            assert not passes.fits(WIDTH)

    def scaled(*arguments, **options):
        found = forward(*arguments, **options)
        found.logits = found.logits / 2
        return found

    with monkeypatch.context() as changed:
        changed.setattr(inner, "forward", scaled)
        assert not passes.fits(WIDTH)

    def everything(position_ids: torch.Tensor) -> torch.Tensor:
        width = position_ids.shape[1]
        return torch.ones(width, width, dtype=torch.bool).tril().expand(len(position_ids), 1, width, width)

    monkeypatch.setattr("reproduction.training.passes.block_causal_mask", everything)
    assert not passes.fits(WIDTH)


def test_positions_begin_anew_with_each_example():
    """Relative (rotary) positions do not show this."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64, n_positions=64, n_embd=32, n_layer=1, n_head=2, attn_implementation="sdpa", initializer_range=0.5
    )
    assert Passes(GPT2LMHeadModel(config), bf16=False, graphs=False).fits(WIDTH)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("full", {}),
        ("idlora", {"micro_batch_size": 2}),
        ("lora", {"micro_batch_size": 2, "gradient_checkpointing": True}),
    ],
)
def test_a_training_on_packed_passes_has_the_loss_curve_of_padded_ones(
    name, changes, base, tokenized, tmp_path, packs_here, monkeypatch, caplog
):
    seen, plain = [], trainer.Stopwatch.on_log

    def on_log(self, args, state, control, logs, **rest):
        plain(self, args, state, control, logs, **rest)
        seen.append(int(state.num_input_tokens_seen))

    monkeypatch.setattr(trainer.Stopwatch, "on_log", on_log)
    spec = schedule(**{"max_steps": 4, "learning_rate": 0.1} | changes)
    with caplog.at_level(logging.WARNING):
        _, packed = run(tmp_path / "packed", base, METHODS[name], tokenized, spec)
    assert packed.passes == "packed"
    # With gradient checkpointing no graph is recorded.
    assert ("could not be recorded as a CUDA graph" in caplog.text) == (spec.gradient_checkpointing is not True)
    trainer.PACKS_ON = ()  # put back by the fixture
    _, padded = run(tmp_path / "padded", base, METHODS[name], tokenized, replace(spec, gradient_checkpointing=False))
    assert padded.passes == "padded"
    assert losses(tmp_path / "packed") == pytest.approx(losses(tmp_path / "padded"), rel=1e-5)
    assert losses(tmp_path / "padded")[-1] != pytest.approx(losses(tmp_path / "padded")[0], rel=1e-3)
    assert packed.tokens_per_second > 0
    assert seen[:5] == seen[5:]  # four steps and a summary of each
    assert 0 < seen[0] < seen[1] < seen[2]


def test_rows_that_are_packed_already_are_trained_as_they_are(base, tokenized, tmp_path, packs_here):
    packs = pack(tokenized, WIDTH)
    spec = schedule(max_steps=2, batch_size=4, micro_batch_size=2, learning_rate=0.1)
    _, ours = run(tmp_path / "ours", base, METHODS["lora"], packs, spec)
    trainer.PACKS_ON = ()  # put back by the fixture
    _, theirs = run(tmp_path / "theirs", base, METHODS["lora"], packs, spec)
    assert (ours.passes, theirs.passes) == ("packed", "padded")
    assert losses(tmp_path / "ours") == pytest.approx(losses(tmp_path / "theirs"), rel=1e-5)


def test_a_resumed_training_on_packed_passes_goes_on_as_one_that_never_stopped(
    base, tokenized, tmp_path, packs_here, monkeypatch
):
    lora, recorded = with_dropout("lora", 0.3), []
    spec = schedule(max_steps=6, save_steps=2, optimizer="adamw_torch", learning_rate=1e-2, epochs=2)

    def prepare(passes: Passes, rows: int, width: int) -> None:
        loaded = all(bool(each.any()) for name, each in passes.model.named_parameters() if "lora_B" in name)
        recorded.append((rows, width, loaded))

    monkeypatch.setattr(Passes, "prepare", prepare)
    run(tmp_path / "whole", base, lora, tokenized, spec)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", base, lora, tokenized, spec, on_step=stop_at_five)
    run(tmp_path / "cut", base, lora, tokenized, spec)
    packing = Packing.of(tokenized, batch_size=8, by_length=False)
    largest = (packing.rows(8), packing.width)  # recorded first, with the tensors of the loaded checkpoint
    assert recorded == [(*largest, False), (*largest, False), (*largest, True)]
    assert furthest(saved_weights(tmp_path / "cut"), saved_weights(tmp_path / "whole")) == 0
    assert log(tmp_path / "cut") == log(tmp_path / "whole")


def test_layers_compute_in_bfloat16_and_the_loss_in_float32(lora, tokenized, tokenizer, monkeypatch):
    plain, seen = functional.cross_entropy, []
    monkeypatch.setattr(
        functional, "cross_entropy", lambda logits, *a, **k: seen.append(logits.dtype) or plain(logits, *a, **k)
    )
    layer = lora.get_base_model().model.layers[0].self_attn.q_proj
    layer.register_forward_hook(lambda _, arguments, out: seen.append(out.dtype))
    Passes(lora, bf16=True, graphs=False)(Collator(tokenizer, width=WIDTH)(tokenized.rows[:9]), 9)
    assert seen == [torch.bfloat16, torch.float32]


def test_too_little_memory_is_known_by_what_caused_an_error():
    caused, during = RuntimeError("capture failed"), RuntimeError("capture failed")
    caused.__cause__ = during.__context__ = torch.OutOfMemoryError("CUDA out of memory.")
    assert is_out_of_memory(caused)
    assert is_out_of_memory(during)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2"))


def test_a_model_that_another_process_refuses_has_the_trainers_own_passes(lora, tokenized, packs_here, monkeypatch):
    monkeypatch.setattr(trainer.launching, "min_over_ranks", lambda value: 0)
    assert packing_of(lora, tokenized, schedule()) is None


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("micro_batch", [8, 2])
def test_graphs_have_the_loss_curve_of_the_trainers_own_passes(
    base, method, micro_batch, tokenized, tmp_path, monkeypatch
):
    spec = schedule(max_steps=6, micro_batch_size=micro_batch, learning_rate=0.1)
    _, ours = run(tmp_path / "ours", base, method, tokenized, spec)
    assert ours.passes == "packed, CUDA graphs"
    monkeypatch.setattr(trainer, "PACKS_ON", ())
    run(tmp_path / "theirs", base, method, tokenized, spec)
    assert losses(tmp_path / "ours") == pytest.approx(losses(tmp_path / "theirs"), rel=1e-5)
    assert losses(tmp_path / "ours")[-1] != pytest.approx(losses(tmp_path / "ours")[0], rel=1e-3)


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("name", ["lora", "idlora"])  # loading gives idlora's kernels another order of its pivots
def test_a_resumed_training_on_graphs_draws_the_dropout_of_one_that_never_stopped(base, tokenized, tmp_path, name):
    method = with_dropout(name, 0.3)
    spec = schedule(max_steps=6, save_steps=2, optimizer="adamw_torch", learning_rate=1e-2, epochs=2)
    run(tmp_path / "whole", base, method, tokenized, spec)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", base, method, tokenized, spec, on_step=stop_at_five)
    run(tmp_path / "cut", base, method, tokenized, spec)
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


@pytest.mark.gpu
@on_gpu
def test_each_replay_of_a_graph_draws_dropout_anew(base, tokenized, tokenizer):
    model = build_adapted(build_base(base)[0], with_dropout("lora", 0.5), 0).train()
    off_zero(model)
    batch = {name: rows.cuda() for name, rows in Collator(tokenizer, width=WIDTH)(tokenized.rows[:9]).items()}
    passes = Passes(model, bf16=False, graphs=True)
    found = {float(passes(batch, 9)) for _ in range(3)}
    assert passes.close() == "packed, CUDA graphs"
    assert len(found) == 3
