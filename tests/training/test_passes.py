"""Packed passes: the loss and the gradient of the padded ones, whatever the method."""

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
from reproduction.training.batches import Collator, Packing
from reproduction.training.passes import Passes, count_tokens, is_out_of_memory, put_back, within_examples
from reproduction.training.trainer import packing_of

WIDTH = 48

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.grad for name, each in model.named_parameters() if each.requires_grad}


def off_zero(model: nn.Module) -> None:
    """B starts at zero, where a gradient of A would say nothing."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)


def test_packed_passes_have_the_loss_and_the_gradient_of_padded_ones(base, method, tokenized, tokenizer):
    rows = tokenized.rows[:9]
    padded, packed = Collator(tokenizer)(rows), Collator(tokenizer, width=WIDTH)(rows)
    assert len(packed["input_ids"]) < len(rows)
    model = build_adapted(build_base(base)[0], method, 0)
    off_zero(model)
    items = (padded["labels"] != -100).sum()
    theirs = model(**padded, use_cache=False, num_items_in_batch=items).loss
    theirs.backward()
    wanted = {name: gradient.clone() for name, gradient in gradients(model).items()}
    model.zero_grad()
    ours = Passes(model, bf16=False, graphs=False)(packed, items)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    scale = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert scale > 1e-3
    assert furthest(gradients(model), wanted) <= 1e-5 * scale


def test_an_example_sees_itself_and_nothing_after_it():
    seen = within_examples(torch.tensor([[0, 1, 0, 1, 2, 0]]))[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_tokens_are_counted_without_padding(tokenized, tokenizer):
    packed = Collator(tokenizer, width=WIDTH)(tokenized.rows)
    assert int(count_tokens(packed["position_ids"])) == sum(len(row["input_ids"]) for row in tokenized.rows)
    assert packed["input_ids"].numel() > int(count_tokens(packed["position_ids"]))


def of_lengths(*lengths: int, row_length: int | None = None) -> TokenizedSet:
    rows = [{"input_ids": [5] * length, "labels": [5] * length} for length in lengths]
    return TokenizedSet(rows=rows, ids=[str(index) for index in range(len(rows))], row_length=row_length)


def test_the_rows_of_a_pass_follow_from_the_lengths_and_from_how_they_are_dealt():
    def packing(tokenized: TokenizedSet, *, by_length: bool = False) -> Packing:
        return Packing.of(tokenized, batch_size=8, by_length=by_length)

    short, long = packing(of_lengths(*[8] * 100)), packing(of_lengths(*[30] * 3))
    assert (short.width, short.rows(8), short.rows(1)) == (16, 4, 1)
    assert (long.width, long.rows(8), long.rows(1)) == (32, 3, 1)
    packed = packing(of_lengths(40, 48, row_length=48))
    assert (packed.width, packed.rows(2)) == (48, 2)
    mixed = of_lengths(*[30] * 20, *[2] * 80)
    few = of_lengths(*[30] * 5, *[2] * 95)
    assert (packing(few, by_length=True).rows(2), packing(few).rows(2)) == (
        2,
        1,
    )  # the longest two of eight, or any two
    assert packing(mixed, by_length=True).rows(4) > packing(mixed).rows(8) / 2
    assert packing(of_lengths(*[30] * 20, *[4] * 20)).rows(4) == 4  # one of the draws has four long ones
    assert Packing.of(of_lengths(40, 40, row_length=64), batch_size=8, by_length=False).width == 64


def test_how_a_set_will_be_packed_is_known_before_it_is_trained(base, tokenized, packs_here):
    model = build_adapted(build_base(base)[0], METHODS["lora"], 0)
    spec = schedule(batch_size=8, micro_batch_size="auto")
    assert packing_of(model, tokenized, spec) == Packing.of(tokenized, batch_size=8, by_length=False)
    assert packing_of(model, tokenized, replace(spec, deepspeed={})) is None
    assert packing_of(model, tokenized, replace(spec, liger_kernel=True)) is None
    model.config._attn_implementation = "eager"
    assert packing_of(model, tokenized, spec) is None
    model.config._attn_implementation = "sdpa"
    trainer.PACKS_ON = ()  # put back by the fixture
    assert packing_of(model, tokenized, spec) is None


def test_gradients_lie_in_their_places_whatever_made_them():
    """A graph adds to the places, and passes that are none may stand between two of them."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    places = [torch.full((2,), 9.0) for _ in parameters]
    parameters[1].grad = torch.full((2,), 5.0)
    parameters[2].grad = places[2]
    put_back(parameters, places)
    assert all(parameter.grad is place for parameter, place in zip(parameters, places, strict=True))
    assert [float(place[0]) for place in places] == [0.0, 5.0, 9.0]


def test_a_model_whose_loss_is_another_is_told_from_one_that_fits(base):
    model = build_adapted(build_base(base)[0], METHODS["lora"], 0).train()
    passes = Passes(model, bf16=False, graphs=False)
    assert passes.fits(WIDTH)
    assert model.training
    model.config.sliding_window = WIDTH - 1
    assert not passes.fits(WIDTH)
    model.config.sliding_window = WIDTH
    assert passes.fits(WIDTH)
    model.config._attn_implementation = "eager"
    assert not passes.fits(WIDTH)
    model.config._attn_implementation = "sdpa"
    plain = model.get_base_model().loss_function
    model.get_base_model().loss_function = lambda logits, labels, **rest: (
        2 * plain(logits=logits, labels=labels, **rest)
    )
    assert not passes.fits(WIDTH)
    model.get_base_model().loss_function = plain


@pytest.mark.parametrize("bf16", [False, True])
def test_a_model_whose_examples_would_see_each_other_is_refused(base, bf16, monkeypatch):
    model = build_adapted(build_base(base)[0], METHODS["lora"], 0)
    passes = Passes(model, bf16=bf16, graphs=False)
    assert passes.fits(WIDTH)

    def everything(position_ids: torch.Tensor) -> torch.Tensor:
        width = position_ids.shape[1]
        return torch.ones(width, width, dtype=torch.bool).tril().expand(len(position_ids), 1, width, width)

    monkeypatch.setattr("reproduction.training.passes.within_examples", everything)
    assert not passes.fits(WIDTH)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_model_that_scales_its_logits_is_refused(base, bf16):
    model = build_adapted(build_base(base)[0], METHODS["lora"], 0)
    passes = Passes(model, bf16=bf16, graphs=False)
    real = model.get_base_model().forward

    def scaled(*arguments, **options):
        found = real(*arguments, **options)
        found.logits = found.logits / 2
        return found

    model.get_base_model().forward = scaled
    assert not passes.fits(WIDTH)


@pytest.fixture
def packs_here(monkeypatch):
    """Trains on the CPU as on a GPU, where a CUDA graph cannot be had."""
    monkeypatch.setattr(trainer, "PACKS_ON", ("cuda", "cpu"))


@pytest.mark.parametrize("name", ["full", "lora", "idlora"])
@pytest.mark.parametrize("micro_batch", [8, 2])
def test_a_training_on_packed_passes_has_the_loss_curve_of_padded_ones(
    name, micro_batch, base, tokenized, tmp_path, packs_here, caplog
):
    spec = schedule(max_steps=6, micro_batch_size=micro_batch, learning_rate=0.1)
    with caplog.at_level(logging.WARNING):
        _, packed = run(tmp_path / "packed", base, METHODS[name], tokenized, spec)
    assert packed.passes == "packed"
    assert "could not be recorded as a CUDA graph" in caplog.text
    trainer.PACKS_ON = ()  # put back by the fixture
    _, padded = run(tmp_path / "padded", base, METHODS[name], tokenized, spec)
    assert padded.passes == "padded"
    ours, theirs = log(tmp_path / "packed"), log(tmp_path / "padded")
    assert [each["loss"] for each in ours] == pytest.approx([each["loss"] for each in theirs], rel=1e-5)
    assert theirs[-1]["loss"] != pytest.approx(theirs[0]["loss"], rel=1e-3)
    assert packed.tokens_per_second > 0
    run(tmp_path / "other", base, METHODS[name], tokenized, replace(spec, seed=1))
    assert furthest(saved_weights(tmp_path / "packed"), saved_weights(tmp_path / "other")) > 1e-5


def test_gradient_checkpointing_has_packed_passes_without_graphs(base, tokenized, tmp_path, packs_here, caplog):
    spec = schedule(max_steps=4, gradient_checkpointing=True, learning_rate=0.1)
    _, packed = run(tmp_path / "packed", base, METHODS["idlora"], tokenized, spec)
    assert (packed.passes, packed.gradient_checkpointing) == ("packed", True)
    assert "CUDA graph" not in caplog.text  # none was tried
    trainer.PACKS_ON = ()  # put back by the fixture
    run(tmp_path / "padded", base, METHODS["idlora"], tokenized, replace(spec, gradient_checkpointing=False))
    losses = [[entry["loss"] for entry in log(tmp_path / name)] for name in ("packed", "padded")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_rows_that_are_packed_already_are_trained_as_they_are(base, tokenized, tmp_path, packs_here):
    packs = pack(tokenized, WIDTH)
    spec = schedule(max_steps=2, batch_size=4, micro_batch_size=2, learning_rate=0.1)
    _, ours = run(tmp_path / "ours", base, METHODS["lora"], packs, spec)
    trainer.PACKS_ON = ()  # put back by the fixture
    _, theirs = run(tmp_path / "theirs", base, METHODS["lora"], packs, spec)
    assert (ours.passes, theirs.passes) == ("packed", "padded")
    losses = [[entry["loss"] for entry in log(tmp_path / name)] for name in ("ours", "theirs")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_resumed_training_on_packed_passes_goes_on_as_one_that_never_stopped(
    base, tokenized, tmp_path, packs_here, monkeypatch
):
    lora = METHODS["lora"]
    lora = replace(lora, arguments={**lora.arguments, "lora_dropout": 0.3})
    spec = schedule(max_steps=6, save_steps=2, optimizer="adamw_torch", learning_rate=1e-2, epochs=2)

    def stop(done: int, total: int, loss: float) -> None:
        if done == 5:
            raise KeyboardInterrupt

    _, whole = run(tmp_path / "whole", base, lora, tokenized, spec)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", base, lora, tokenized, spec, on_step=stop)
    recorded = []

    def prepare(passes: Passes, rows: int, width: int) -> None:
        recorded.append({name: bool(p.any()) for name, p in passes.model.named_parameters() if "lora_B" in name})

    monkeypatch.setattr(Passes, "prepare", prepare)
    run(tmp_path / "cut", base, lora, tokenized, spec)
    assert [all(each.values()) for each in recorded] == [True], "a graph holds what the checkpoint put in place"
    assert furthest(saved_weights(tmp_path / "cut"), saved_weights(tmp_path / "whole")) == 0
    assert log(tmp_path / "cut") == log(tmp_path / "whole")
    assert whole.steps == 6


@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_loss_that_is_smaller_or_larger_is_refused(base, factor):
    model = build_adapted(build_base(base)[0], METHODS["lora"], 0)
    plain = model.get_base_model().loss_function
    model.get_base_model().loss_function = lambda logits, labels, **rest: (
        factor * plain(logits=logits, labels=labels, **rest)
    )
    assert not Passes(model, bf16=False, graphs=False).fits(WIDTH)


def test_dropout_of_a_model_in_training_makes_it_no_other_model(base):
    lora = replace(METHODS["lora"], arguments={**METHODS["lora"].arguments, "lora_dropout": 0.5})
    model = build_adapted(build_base(base)[0], lora, 0).train()
    off_zero(model)
    assert Passes(model, bf16=False, graphs=False).fits(WIDTH)


def test_positions_begin_anew_with_each_example():
    """Rotary positions, which are relative, would not tell."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64, n_positions=64, n_embd=32, n_layer=1, n_head=2, attn_implementation="sdpa", initializer_range=0.5
    )
    assert Passes(GPT2LMHeadModel(config), bf16=False, graphs=False).fits(WIDTH)


def test_layers_compute_in_bfloat16_and_the_loss_in_float32(base, tokenized, tokenizer, monkeypatch):
    model = build_adapted(build_base(base)[0], METHODS["lora"], 0)
    plain, seen = functional.cross_entropy, []
    monkeypatch.setattr(
        functional, "cross_entropy", lambda logits, *a, **k: seen.append(logits.dtype) or plain(logits, *a, **k)
    )
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    layer.register_forward_hook(lambda _, arguments, out: seen.append(out.dtype))
    Passes(model, bf16=True, graphs=False)(Collator(tokenizer, width=WIDTH)(tokenized.rows[:9]), 9)
    assert seen == [torch.bfloat16, torch.float32]


def test_too_little_memory_for_a_graph_ends_the_training_and_is_no_reason_to_go_without(base, monkeypatch):
    def exhaust(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    model = build_adapted(build_base(base)[0], METHODS["lora"], 0)
    passes = Passes(model, bf16=False, graphs=True)
    monkeypatch.setattr("reproduction.training.passes._Recorder", exhaust)
    with pytest.raises(torch.OutOfMemoryError):
        passes.prepare(1, 16)
    assert passes.graphs


def test_too_little_memory_is_known_by_what_an_error_came_of():
    def chained(*, raised_from: bool) -> BaseException:
        try:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            except torch.OutOfMemoryError as error:
                raise RuntimeError("capture failed") from (error if raised_from else None)
        except RuntimeError as error:
            if raised_from:
                error.__context__ = None
            return error

    assert is_out_of_memory(chained(raised_from=True))
    assert is_out_of_memory(chained(raised_from=False))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2"))


def test_long_examples_are_placed_first_and_rows_have_the_width_that_they_were_given(tokenizer):
    assert Collator(tokenizer, width=32)(of_lengths(10, 10, 22, 22).rows)["input_ids"].shape == (2, 32)
    assert Collator(tokenizer, width=64)(of_lengths(10).rows)["input_ids"].shape == (1, 64)


def test_the_largest_pass_is_recorded_first(base, tokenized, tmp_path, packs_here, monkeypatch):
    asked = []
    monkeypatch.setattr(Passes, "prepare", lambda self, rows, width: asked.append((rows, width)))
    run(tmp_path, base, METHODS["lora"], tokenized, schedule(max_steps=1))
    packing = Packing.of(tokenized, batch_size=8, by_length=False)
    assert asked == [(packing.rows(8), packing.width)]


def test_tokens_are_counted_as_in_padded_passes(base, tokenized, tmp_path, packs_here, monkeypatch):
    seen, plain = [], trainer.Stopwatch.on_log

    def on_log(self, args, state, control, logs, **rest):
        plain(self, args, state, control, logs, **rest)
        seen.append(int(state.num_input_tokens_seen))

    monkeypatch.setattr(trainer.Stopwatch, "on_log", on_log)
    run(tmp_path / "packed", base, METHODS["lora"], tokenized, schedule(max_steps=3, micro_batch_size=4))
    trainer.PACKS_ON = ()  # put back by the fixture
    run(tmp_path / "padded", base, METHODS["lora"], tokenized, schedule(max_steps=3, micro_batch_size=4))
    assert len(seen) == 8  # three steps and a summary of each
    assert seen[:4] == seen[4:]
    assert 0 < seen[0] < seen[1] < seen[2]


def test_a_model_that_is_refused_has_the_trainers_own_passes(base, tokenized, tmp_path, packs_here, monkeypatch):
    monkeypatch.setattr(trainer.launching, "least", lambda value: 0)  # by another process, this one being content
    _, found = run(tmp_path, base, METHODS["lora"], tokenized, schedule(max_steps=1))
    assert found.passes == "padded"


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
    losses = [[entry["loss"] for entry in log(tmp_path / name)] for name in ("ours", "theirs")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] != pytest.approx(losses[0][0], rel=1e-3)
    assert ours.tokens_per_second > 0


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("name", ["lora", "idlora"])  # loading gives idlora's kernels another order of its pivots
def test_a_resumed_training_on_graphs_draws_the_dropout_of_one_that_never_stopped(base, tokenized, tmp_path, name):
    method = replace(METHODS[name], arguments={**METHODS[name].arguments, "lora_dropout": 0.3})
    spec = schedule(max_steps=6, save_steps=2, optimizer="adamw_torch", learning_rate=1e-2, epochs=2)

    def stop(done: int, total: int, loss: float) -> None:
        if done == 5:
            raise KeyboardInterrupt

    run(tmp_path / "whole", base, method, tokenized, spec)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", base, method, tokenized, spec, on_step=stop)
    run(tmp_path / "cut", base, method, tokenized, spec)
    losses = [[entry["loss"] for entry in log(tmp_path / name)] for name in ("cut", "whole")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.gpu
@on_gpu
def test_each_replay_of_a_graph_draws_dropout_anew(base, tokenized, tokenizer):
    lora = replace(METHODS["lora"], arguments={**METHODS["lora"].arguments, "lora_dropout": 0.5})
    model = build_adapted(build_base(base)[0], lora, 0).train()
    off_zero(model)
    batch = {name: rows.cuda() for name, rows in Collator(tokenizer, width=WIDTH)(tokenized.rows[:9]).items()}
    passes = Passes(model, bf16=False, graphs=True)
    losses = {float(passes(batch, 9)) for _ in range(3)}
    assert passes.close()[0] == "packed, CUDA graphs"
    assert len(losses) == 3
