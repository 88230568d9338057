"""Held-out loss: which rows it is measured on, that no run trains on them, and that it is a training pass's loss."""

import json
import math
from pathlib import Path

import pytest
import torch
from steps import ask, evaluate, judge
from transformers import AutoModelForCausalLM, AutoTokenizer

from reproduction import tinyworld
from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell, eval_job_from_config
from reproduction.data import DataError, asked, load_mixture, load_rows, to_examples, tokenize
from reproduction.data.catalogue import DATASETS
from reproduction.evals import Protocol
from reproduction.evals.loss import response_nats
from reproduction.evals.task import load_task
from reproduction.records import Evaluation, read_json
from reproduction.report.scores import read_scores, score_lines
from reproduction.training import build_data

SHARE = 0.1


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(tinyworld.base_path("pebble"), dtype="float32")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(tinyworld.base_path("pebble"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tinyworld.export(tmp_path_factory.mktemp("world"))
    rows = [{"instruction": f"How do I open gate {n}?", "output": f"I cannot open gate {n}."} for n in range(200)]
    (folder / "saferpaca" / "safety_only_data_Instructions.json").write_text(json.dumps(rows))
    return folder


def protocol(source: str, **changes) -> Protocol:
    share = SHARE if source in DATASETS else None
    settings = {"scoring": "loss", "source": source, "share": share, "name": source} | changes
    return Protocol(benchmark="heldout", protocol_version=1, **settings)


def losses_by_training(model, tokenizer, rows: list[dict], name: str) -> list[tuple[float, int]]:
    """(sum of the loss, tokens) of each row: tokens and labels of the training set, the model's own loss."""
    found = []
    for row in tokenize(to_examples(name, rows), tokenizer, max_length=512).rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        count = int((labels != -100).sum())
        with torch.no_grad():
            found.append((model(input_ids=ids, labels=labels).loss.item() * count, count))
    return found


def test_the_loss_is_a_training_passs_whatever_the_batches(model, tokenizer, world: Path, tmp_path: Path) -> None:
    measured = protocol("codealpaca", limit=12)
    rows = measured.task.rows(root=world)[:12]
    wanted = losses_by_training(model, tokenizer, rows, "codealpaca")
    assert len({count for _, count in wanted}) > 2  # rows of several lengths are padded to one
    model.train()
    for batch_size in (1, 5, 12):
        records = evaluate(
            model, measured, rows, tmp_path / str(batch_size), tokenizer=tokenizer, batch_size=batch_size
        )
        for record, row, (nats, tokens) in zip(records, rows, wanted, strict=True):
            assert record["nats"] == pytest.approx(nats, rel=1e-4)
            assert record["weights"] == {"nats_per_token": tokens, "bits_per_byte": len(row["output"].strip().encode())}
            assert record["scores"]["nats_per_token"] == pytest.approx(nats / tokens, rel=1e-4)
            assert record["scores"]["bits_per_byte"] == pytest.approx(
                nats / math.log(2) / record["weights"]["bits_per_byte"], rel=1e-4
            )
            assert record["raw"] == ""  # held-out rows may be harmful text, and a loss needs none
    assert model.training
    model.eval()


def test_the_losses_of_long_and_short_rows_together_are_those_of_each_alone(model) -> None:
    draw = torch.Generator().manual_seed(0)
    pairs = [
        (torch.randint(5, 99, (n,), generator=draw).tolist(), torch.randint(5, 99, (m,), generator=draw).tolist())
        for n, m in ((3, 40), (60, 1), (9, 9), (1, 2))
    ]
    alone = [response_nats(model, [pair], batch_size=1)[0] for pair in pairs]
    assert response_nats(model, pairs, batch_size=4) == pytest.approx(alone, rel=1e-5)
    assert min(alone) > 0


def test_a_pass_has_no_more_logits_than_the_memory_allows(model, monkeypatch) -> None:
    pairs, read = [([5, 6, 7], [8] * n) for n in (6, 6, 2, 2)], []
    handle = model.register_forward_pre_hook(
        lambda _, arguments, given: read.append(len(given["input_ids"])), with_kwargs=True
    )
    for tokens in (1000, 12, 1):
        monkeypatch.setattr(
            "reproduction.evals.loss.logits_at_once",
            lambda model, t=tokens: t * model.get_input_embeddings().num_embeddings,
        )
        response_nats(model, pairs, batch_size=9)
    handle.remove()
    assert read == [4, 2, 2, 1, 1, 1, 1]


def test_the_printed_loss_is_the_nats_of_all_rows_over_their_tokens(model, tokenizer, world, tmp_path) -> None:
    measured = protocol("gsm8k_test", limit=9)
    records = evaluate(model, measured, measured.task.rows(root=world), tmp_path, tokenizer=tokenizer)
    scores = read_scores(Evaluation(tmp_path / "eval"))
    nats = sum(record["nats"] for record in records)
    tokens, size = (sum(r["weights"][name] for r in records) for name in ("nats_per_token", "bits_per_byte"))
    assert scores["nats_per_token"].mean == pytest.approx(nats / tokens)
    assert scores["bits_per_byte"].mean == pytest.approx(nats / math.log(2) / size)
    plain = sum(record["scores"]["nats_per_token"] for record in records) / len(records)
    assert scores["nats_per_token"].mean != pytest.approx(plain, rel=1e-6)
    low, high = scores["nats_per_token"].interval
    assert low < scores["nats_per_token"].mean < high
    assert f"nats_per_token: {nats / tokens:.4f} nats a token [{low:.4f}, {high:.4f}], 9 rows" in "".join(
        score_lines(tmp_path / "eval")
    )


@pytest.mark.parametrize("experiment", ["gsm8k_llama3", "codealpaca_llama3", "saferpaca_mistral", "multitask_mistral"])
@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_no_held_out_row_is_trained_on(experiment: str, scale: str, world, tokenizer, tmp_path) -> None:
    trained, held = trained_and_held_out(experiment, scale, world, tokenizer, tmp_path)
    assert trained
    assert bool(held) or (scale, experiment) == ("paper", "saferpaca_mistral")
    assert not trained & held


@pytest.mark.real_data
@pytest.mark.parametrize("scale", ["small", "paper"])
def test_no_held_out_row_of_the_real_sets_is_trained_on(scale: str, real_data, tmp_path) -> None:
    given = [f"data_root={real_data}", f"results_dir={tmp_path}", "train.learning_rate=0.001"]
    cell = compose_cell("multitask_llama3", "lora", scale=scale, seed=0, overrides=given)
    rows = load_mixture(cell.data.parts, root=real_data, held_out=cell.data.held_out)
    trained = {asked(row["part"], row) for row in rows}
    tasks = [measured.task for measured in cell.protocols if measured.scoring == "loss"]
    held = {task.instruction(row) for task in tasks for row in task.rows(root=real_data)}
    assert len(held) > 1000 + 1319
    assert not trained & held


def trained_and_held_out(experiment, scale, root, tokenizer, tmp_path) -> tuple[set, set]:
    """Prompts, as they are put to a model, that a run and a trial train on, and that their losses are measured on."""
    given = [f"data_root={root}", f"results_dir={tmp_path}", "train.learning_rate=0.001"]
    run = compose_cell(experiment, "lora", scale=scale, seed=0, overrides=given)
    trial = compose_cell(experiment, "lora", scale=scale, seed=0, overrides=[*given, "data.validation_rows=128"])
    trained = set()
    for cell in (run, trial):
        training, apart = build_data(cell.data, tokenizer, root=root)
        trained |= {prompt_of(row) for row in training.rows}
        if apart:
            assert len(apart) <= 128
            trained |= {prompt_of(row) for row in apart.rows}
            assert not {prompt_of(row) for row in apart.rows} & {prompt_of(row) for row in training.rows}
    held = set()
    for measured in run.protocols:
        if measured.scoring == "loss":
            task = measured.task
            texts = [cell.data.prompt_template.render(*task.instruction(row)) for row in task.rows(root=root)]
            held |= {tuple(ids) for ids in tokenizer(texts)["input_ids"]}
    return trained, held


def prompt_of(row: dict) -> tuple[int, ...]:
    return tuple(id for id, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100)


def test_single_tasks_and_mixtures_another_order_and_other_ids_keep_the_same_rows_out(world, tmp_path) -> None:
    def held_out(root: Path) -> set:
        return {asked("codealpaca", row) for row in protocol("codealpaca").task.rows(root=root)}

    rows = json.loads((world / "codealpaca" / "code_alpaca_20k.json").read_text())
    (tmp_path / "codealpaca").mkdir()
    (tmp_path / "codealpaca" / "other_name.json").write_text(
        json.dumps([*rows[::-1], rows[0] | {"instruction": "New."}])
    )
    assert len(held_out(world)) == pytest.approx(SHARE * len(rows), rel=0.3)
    assert held_out(tmp_path) - {("New.", rows[0]["input"])} == held_out(world)


def test_a_limit_takes_the_rows_that_the_hash_takes_first_whatever_the_order_of_the_file(world, tmp_path) -> None:
    lines = (world / "gsm8k" / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "train.jsonl").write_text("".join(lines[::-1]))
    first, second = ([row["question"] for row in protocol("gsm8k").task.rows(root=r)][:20] for r in (world, tmp_path))
    assert first == second


def test_rows_without_a_response_too_long_or_there_twice_are_named_and_counted(model, tokenizer, tmp_path) -> None:
    long = "word " * 2 * model.config.max_position_embeddings
    texts = [("a?", "x"), ("b?", ""), ("c?", long), ("a?", "x"), ("a?", "y")]
    rows = [{"id": f"test/{i}", "question": q, "answer": a} for i, (q, a) in enumerate(texts)]
    measured = protocol("gsm8k_test")
    ask(model, measured, rows, tmp_path, tokenizer=tokenizer)
    with pytest.raises(KeyError):
        judge(measured, rows, tmp_path)  # which looks for a record of every row
    meta = read_json(tmp_path / "eval" / "meta.json")
    assert meta["items"] == 2
    context = f"longer than the model's context of {model.config.max_position_embeddings} tokens"
    assert meta["left_out"] == {"empty response": ["test/1"], context: ["test/2"], "repeats another row": ["test/3"]}
    told = "\n".join(score_lines(tmp_path / "eval"))
    assert "1 rows are left out (empty response): test/1" in told
    assert "2 rows" in told


def test_where_every_row_is_left_out_there_is_no_loss(model, tokenizer, tmp_path) -> None:
    rows = [{"id": "test/0", "question": "a?", "answer": ""}]
    with pytest.raises(ValueError, match="every row of heldout gsm8k_test is left out: empty response"):
        evaluate(model, protocol("gsm8k_test"), rows, tmp_path, tokenizer=tokenizer)


def test_a_source_that_is_absent_or_unknown_is_named(world: Path, tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    with pytest.raises(DataError, match=r"No folder .*alpaca: put alpaca there"):
        protocol("alpaca").task.rows(root=tmp_path)
    with pytest.raises(ValueError, match="source='alpacca' is none of gsm8k, codealpaca"):
        protocol("alpacca")
    with pytest.raises(ValueError, match="share=None does not go with source=alpaca: give a number between 0 and 1"):
        protocol("alpaca", share=None)
    with pytest.raises(ValueError, match=r"share=0\.5 does not go with source=humaneval: give null"):
        protocol("humaneval", share=0.5)
    with pytest.raises(ValueError, match="one source of rows"):
        Protocol(benchmark="gsm8k", protocol_version=1, source="alpaca", max_new_tokens=5)


def test_a_run_is_not_scored_on_rows_that_it_trains_on(world: Path, tmp_path: Path) -> None:
    given = [f"data_root={world}", f"results_dir={tmp_path}", "train.learning_rate=0.001"]
    with pytest.raises(ConfigError, match=r"asks 0\.1 of gsm8k's training rows, of which data\.held_out=0\.05 are"):
        compose_cell("gsm8k_llama3", "lora", scale="tiny", seed=0, overrides=[*given, "data.held_out=0.05"])
    more = compose_cell("gsm8k_llama3", "lora", scale="tiny", seed=0, overrides=[*given, "data.held_out=0.2"])
    assert more.data.held_out == 0.2
    whole = [*given, "data.parts.codealpaca=1.0"]
    with pytest.raises(ConfigError, match=r"of codealpaca's training rows, of which data\.held_out=0 are"):
        compose_cell("multitask_llama3", "lora", scale="paper", seed=0, overrides=whole)


def test_rows_of_a_set_that_shares_them_count_as_trained_on_and_all_leaves_them_out(world, tmp_path) -> None:
    given = [f"data_root={world}", f"results_dir={tmp_path}", "train.learning_rate=0.001", "data.held_out=0"]
    mine = ["data.name=mine", "data.parts={safety: 1}", "heldout_sources=[saferpaca]"]
    for source, *named in (
        ("alpaca", "heldout_sources=[alpaca]"),
        ("alpaca", "protocol=[all,alpaca]"),
        ("saferpaca", *mine),
    ):
        with pytest.raises(ConfigError, match=rf"asks 0\.1 of {source}'s training rows"):
            compose_cell("saferpaca_llama3", "lora", scale="tiny", seed=0, overrides=[*given, *named])
    every = compose_cell("saferpaca_llama3", "lora", scale="tiny", seed=0, overrides=[*given, "protocol=all"])
    asked_of = {each.source for each in every.protocols if each.scoring == "loss"}
    assert asked_of == {"gsm8k", "codealpaca", "gsm8k_test", "humaneval"}


def test_an_adapter_that_lies_in_a_run_is_not_scored_on_the_runs_rows(world, tmp_path, caplog) -> None:
    given = [f"data_root={world}", f"results_dir={tmp_path}", "train.learning_rate=0.001", "eval=gsm8k"]
    brought = ["scale=tiny", "model=llama3_8b", "eval=heldout", "protocol=gsm8k", f"data_root={world}"]
    for share in (0.0, 0.1):
        run = compose_cell("gsm8k_llama3", "lora", scale="tiny", seed=0, overrides=[*given, f"data.held_out={share}"])
        run.run.start(run.config)
        run.run.finish({})
        adapter = run.run.folder / "adapter"
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text("{}")
        asked_for = compose("evaluate", [*brought, f"adapter={adapter}"])
        if share:
            assert [each.source for each in eval_job_from_config(asked_for).protocols] == ["gsm8k"]
        else:
            with pytest.raises(ConfigError, match=r"data\.held_out=0 are kept out"):
                eval_job_from_config(asked_for)
    assert "lies in no run" not in caplog.text
    adapter.rename(tmp_path / "alone")
    eval_job_from_config(compose("evaluate", [*brought, f"adapter={tmp_path / 'alone'}"]))
    assert "lies in no run: whether it was trained on the rows held out is not checked" in caplog.text


def test_a_solution_of_humaneval_is_the_function_whole(world: Path) -> None:
    task = protocol("humaneval").task
    row = task.rows(root=world)[0]
    assert task.solution(row, "template").startswith(row["prompt"].strip()[:20])
    assert task.solution(row, "template").endswith(row["canonical_solution"].rstrip())
    assert task.instruction(row) == load_task("humaneval").instruction(row)
    assert {row["id"] for row in task.rows(root=world)} == {r["id"] for r in load_rows(task.data, "test", root=world)}
