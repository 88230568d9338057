"""Rows kept out of training: which they are, that no run trains on them, their losses, and prompts made of them."""

import json
import math
import random
from pathlib import Path

import pytest
import torch
from steps import ask, evaluate, judge, scored
from transformers import AutoModelForCausalLM, AutoTokenizer

from reproduction import tinyworld
from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell, eval_job_from_config
from reproduction.data import DataError, instruction_of, load_mixture, load_rows, to_examples, tokenize
from reproduction.data.catalogue import DATASETS
from reproduction.data.splits import is_held_out, place
from reproduction.evals import Permissions, Protocol
from reproduction.evals.judges.prefix import refuses
from reproduction.evals.loss import response_nats
from reproduction.evals.task import load_task
from reproduction.evals.tasks.safety_prompts import ALWAYS, NEVER, OWN
from reproduction.records import read_json
from reproduction.report.reference import read_reference
from reproduction.report.scores import score_lines
from reproduction.training import build_data

SHARE = 0.1
PROMPTS = {"safety_prompts": "safety", "harmless_prompts": "alpaca"}


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(tinyworld.base_path("pebble"), dtype="float32")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(tinyworld.base_path("pebble"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world, with safety rows of which three in four refuse, each there again with another answer."""
    folder = tinyworld.export(tmp_path_factory.mktemp("world"))
    answers = [f"I cannot open gate {n}." if n % 4 else f"Gate {n} opens to the left." for n in range(400)]
    rows = [{"instruction": f" Open gate {n}. ", "output": answer} for n, answer in enumerate(answers)]
    twice = [*rows, *(row | {"output": "Push."} for row in rows)]
    (folder / "saferpaca" / "safety_only_data_Instructions.json").write_text(json.dumps(twice))
    return folder


def protocol(source: str, **changes) -> Protocol:
    share = SHARE if source in DATASETS else None
    settings = {"scoring": "loss", "source": source, "share": share, "name": source} | changes
    return Protocol(benchmark="heldout", protocol_version=1, **settings)


def mmlu(**settings) -> Protocol:
    return Protocol(**{"benchmark": "mmlu", "protocol_version": 1, "scoring": "likelihood"} | settings)


def cell_of(experiment: str, root: Path | None, folder: Path, *more: str, scale: str = "tiny", method: str = "lora"):
    where = [] if root is None else [f"data_root={root}"]
    given = [*where, f"results_dir={folder}", "train.learning_rate=0.001", *more]
    return compose_cell(experiment, method, scale=scale, seed=0, overrides=given)


# Losses


def test_the_loss_is_a_training_passs_whatever_the_batches(model, tokenizer, world: Path, tmp_path: Path) -> None:
    measured = protocol("codealpaca", limit=12)
    rows, wanted = measured.task.rows(root=world)[:12], []
    for row in tokenize(to_examples("codealpaca", rows), tokenizer, max_length=512).rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        count = int((labels != -100).sum())
        with torch.no_grad():
            wanted.append((model(input_ids=ids, labels=labels).loss.item() * count, count))
    assert len({count for _, count in wanted}) > 2  # rows of several lengths are padded to one
    model.train()
    for batch_size in (1, 5, 12):
        folder = tmp_path / str(batch_size)
        records = evaluate(model, measured, rows, folder, tokenizer=tokenizer, batch_size=batch_size)
        for record, row, (nats, tokens) in zip(records, rows, wanted, strict=True):
            size = len(row["output"].strip().encode())
            assert record["nats"] == pytest.approx(nats, rel=1e-4)
            assert record["weights"] == {"nats_per_token": tokens, "bits_per_byte": size}
            assert record["scores"] == pytest.approx(
                {"nats_per_token": nats / tokens, "bits_per_byte": nats / math.log(2) / size}, rel=1e-4
            )
            assert record["raw"] == ""  # held-out rows may be harmful text, and a loss needs none
    assert model.training
    model.eval()


def test_rows_of_one_pass_have_the_losses_of_each_alone_and_no_more_logits_than_the_memory_allows(
    model, monkeypatch
) -> None:
    draw = torch.Generator().manual_seed(0)
    pairs = [
        (torch.randint(5, 99, (n,), generator=draw).tolist(), torch.randint(5, 99, (m,), generator=draw).tolist())
        for n, m in ((3, 40), (60, 1), (9, 9), (1, 2))
    ]
    alone = [response_nats(model, [pair], batch_size=1)[0] for pair in pairs]
    assert response_nats(model, pairs, batch_size=4) == pytest.approx(alone, rel=1e-5)
    assert min(alone) > 0
    read = []
    hook = model.register_forward_pre_hook(
        lambda _, args, given: read.append(len(given["input_ids"])), with_kwargs=True
    )
    vocabulary = model.get_input_embeddings().num_embeddings
    for tokens in (1000, 12, 1):
        monkeypatch.setattr("reproduction.evals.loss.logits_at_once", lambda model, t=tokens: t * vocabulary)
        response_nats(model, [([5, 6, 7], [8] * n) for n in (6, 6, 2, 2)], batch_size=9)
    hook.remove()
    assert read == [4, 2, 2, 1, 1, 1, 1]


def test_rows_without_a_response_too_long_or_there_twice_are_named_and_counted(model, tokenizer, tmp_path) -> None:
    context = model.config.max_position_embeddings
    texts = [("a?", "x"), ("b?", ""), ("c?", "word " * 2 * context), ("a?", "x"), ("a?", "y")]
    rows = [{"id": f"test/{i}", "question": q, "answer": a} for i, (q, a) in enumerate(texts)]
    measured = protocol("gsm8k_test")
    ask(model, measured, rows, tmp_path, tokenizer=tokenizer)
    with pytest.raises(KeyError):
        judge(measured, rows, tmp_path)  # which looks for a record of every row
    meta = read_json(tmp_path / "eval" / "meta.json")
    assert meta["items"] == 2
    too_long = f"longer than the model's context of {context} tokens"
    assert meta["left_out"] == {"empty response": ["test/1"], too_long: ["test/2"], "repeats another row": ["test/3"]}
    assert "1 rows are left out (empty response): test/1" in "\n".join(score_lines(tmp_path / "eval"))
    with pytest.raises(ValueError, match="every row of heldout gsm8k_test is left out: empty response"):
        evaluate(model, measured, rows[1:2], tmp_path / "none", tokenizer=tokenizer)


def test_a_solution_of_humaneval_is_the_function_whole_and_an_absent_source_is_named(world: Path, tmp_path) -> None:
    task = protocol("humaneval").task
    rows = task.rows(root=world)
    solution = task.solution(rows[0], "template")
    assert solution == (rows[0]["prompt"] + rows[0]["canonical_solution"]).strip()
    assert task.instruction(rows[0]) == load_task("humaneval").instruction(rows[0])
    assert {row["id"] for row in rows} == {r["id"] for r in load_rows(task.data, "test", root=world)}
    with pytest.raises(DataError, match=r"No folder .*alpaca: put alpaca there"):
        protocol("alpaca").task.rows(root=tmp_path)


# Rows that no run trains on


@pytest.mark.parametrize("experiment", ["gsm8k_llama3", "saferpaca_mistral", "multitask_mistral"])
@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_no_held_out_row_is_trained_on(experiment: str, scale: str, world, tokenizer, tmp_path) -> None:
    def prompts(rows: list[dict]) -> set[tuple[int, ...]]:
        return {tuple(id for id, label in zip(*row.values(), strict=True) if label == -100) for row in rows}

    trial = cell_of(experiment, world, tmp_path, "data.validation_rows=128", scale=scale)
    training, apart = build_data(trial.data, tokenizer, root=world)
    assert 0 < len(apart) <= 128
    assert not prompts(training.rows) & prompts(apart.rows)
    tasks = [measured.task for measured in trial.protocols if measured.scoring == "loss"]
    render = trial.data.prompt_template.render
    texts = [render(*task.instruction(row)) for task in tasks for row in task.rows(root=world)]
    held = {tuple(ids) for ids in tokenizer(texts)["input_ids"]} if texts else set()
    assert bool(held) or (scale, experiment) == ("paper", "saferpaca_mistral")
    assert not prompts([*training.rows, *apart.rows]) & held


def test_another_order_and_other_ids_keep_the_same_rows_out_and_the_same_first(world, tmp_path) -> None:
    rows = json.loads((world / "codealpaca" / "code_alpaca_20k.json").read_text())
    (tmp_path / "codealpaca").mkdir()
    more = [*rows[::-1], rows[0] | {"instruction": "New."}]
    (tmp_path / "codealpaca" / "other_name.json").write_text(json.dumps(more))
    here, there = (
        [instruction_of("codealpaca", row) for row in protocol("codealpaca").task.rows(root=root)]
        for root in (world, tmp_path)
    )
    assert len(here) == pytest.approx(SHARE * len(rows), rel=0.3)
    assert list(dict.fromkeys(here)) == [each for each in dict.fromkeys(there) if each[0] != "New."]


def test_a_run_is_not_scored_on_rows_that_it_or_a_set_that_shares_them_trains_on(world: Path, tmp_path: Path) -> None:
    def refused(source: str, experiment: str, *given: str, **more) -> None:
        with pytest.raises(ConfigError, match=rf"of {source}'s training rows"):
            cell_of(experiment, world, tmp_path, *given, **more)

    refused("gsm8k", "gsm8k_llama3", "data.held_out=0.05")
    assert cell_of("gsm8k_llama3", world, tmp_path, "data.held_out=0.2").data.held_out == 0.2
    refused("codealpaca", "multitask_llama3", "data.parts.codealpaca=1.0", scale="paper")
    refused("safety", "saferpaca_llama3", "data.held_out=0.05", scale="small")
    nothing = "data.held_out=0"
    refused("alpaca", "saferpaca_llama3", nothing, "heldout_sources=[alpaca]")
    refused("alpaca", "saferpaca_llama3", nothing, "protocol=[all,alpaca]")
    mine = ["data.name=mine", "data.parts={safety: 1}", "heldout_sources=[saferpaca]"]
    refused("saferpaca", "saferpaca_llama3", nothing, *mine)
    every = cell_of("saferpaca_llama3", world, tmp_path, nothing, "protocol=all")
    sources = {each.source for each in every.protocols if each.scoring == "loss"}
    assert sources == {"gsm8k", "codealpaca", "gsm8k_test", "humaneval"}


def test_an_adapter_that_lies_in_a_run_is_not_scored_on_the_runs_rows(world, tmp_path, caplog) -> None:
    brought = ["scale=tiny", "model=llama3_8b", "eval=heldout", "protocol=gsm8k", f"data_root={world}"]
    for share in (0.0, 0.1):
        run = cell_of("gsm8k_llama3", world, tmp_path, "eval=gsm8k", f"data.held_out={share}")
        run.run.start(run.config)
        run.run.finish({})
        adapter = run.run.folder / "adapter"
        adapter.mkdir()
        (adapter / "adapter_config.json").write_text("{}")
        config = compose("evaluate", [*brought, f"adapter={adapter}"])
        if share:
            assert [each.source for each in eval_job_from_config(config).protocols] == ["gsm8k"]
        else:
            with pytest.raises(ConfigError, match=r"data\.held_out=0 are kept out"):
                eval_job_from_config(config)
    assert "lies in no run" not in caplog.text
    adapter.rename(tmp_path / "alone")
    eval_job_from_config(compose("evaluate", [*brought, f"adapter={tmp_path / 'alone'}"]))
    assert "lies in no run" in caplog.text


# Prompts that stand in for HEx-PHI


@pytest.mark.parametrize(("benchmark", "name"), PROMPTS.items())
def test_every_row_held_out_that_asks_in_one_text_is_a_prompt_once_the_highest_first(benchmark, name, world) -> None:
    settings = {"share": SHARE, "judge": "prefix", "max_new_tokens": 8}
    prompts = [
        row["prompt"] for row in Protocol(benchmark=benchmark, protocol_version=1, **settings).task.rows(root=world)
    ]
    held = {
        instruction_of(name, row)
        for row in load_rows(name, "train", root=world)
        if is_held_out(instruction_of(name, row), SHARE)
    }
    assert len(held) > 20
    assert sorted(prompts) == sorted(instruction for instruction, input in held if not input)
    assert prompts == sorted(prompts, key=lambda prompt: -place((prompt, "")))


def test_known_answers_are_judged_on_the_same_prompts_and_stand_beside_the_models_records(world, tmp_path) -> None:
    settings = {"share": SHARE, "judge": "prefix", "max_new_tokens": 8}
    safety = Protocol(benchmark="safety_prompts", protocol_version=1, **settings)
    rows = safety.task.rows(root=world)[:20]
    found = scored(safety, rows, ["Sure: push.", *["I'm sorry, no."] * 19], tmp_path, permissions=Permissions())
    assert [each["scores"]["refusal"] for each in found] == [0.0, *[1.0] * 19]
    own = sum(refuses("", row["answer"]) for row in rows) / 20
    assert 0 < own < 1
    assert read_json(tmp_path / "eval" / "meta.json")["controls"] == {OWN: own, ALWAYS: 1.0, NEVER: 0.0}
    assert not any(row["answer"] in json.dumps(found) for row in rows)


def test_at_the_small_scale_alone_a_stand_in_is_trained_on_and_its_held_out_rows_are_asked(world, tmp_path) -> None:
    small = cell_of("saferpaca_llama3", world, tmp_path, scale="small")
    assert (small.data.name, small.data.parts) == ("saferpaca_stand_in", {"alpaca": 10, "safety": 1})
    asked_on = {each.benchmark: each.limit for each in small.protocols if each.benchmark in PROMPTS}
    assert asked_on == {"safety_prompts": 200, "harmless_prompts": 200}
    assert {each.source for each in small.protocols if each.scoring == "loss"} == {"alpaca", "safety"}
    for scale in ("tiny", "paper"):
        other = cell_of("saferpaca_llama3", world, tmp_path, scale=scale)
        assert (other.data.name, other.data.parts) == ("saferpaca", None)
        assert not {each.benchmark for each in other.protocols} & PROMPTS.keys()


def test_hexphi_itself_is_asked_where_the_data_folder_or_the_hubs_cache_has_it(tmp_path, monkeypatch) -> None:
    def asked_on(root: Path | None, scale: str = "small") -> bool:
        cell = cell_of("saferpaca_llama3", root, tmp_path, scale=scale, method="base")
        return "hexphi" in [each.benchmark for each in cell.protocols]

    (tmp_path / "hexphi").mkdir()
    assert not asked_on(tmp_path)
    (tmp_path / "hexphi" / "category_1.csv").write_text("Open it.\n")
    assert asked_on(tmp_path)
    for cached in (False, True):
        monkeypatch.setattr("reproduction.data.hub.cached", lambda spec, revision, there=cached: there)
        assert asked_on(None) == cached
        assert asked_on(None, "paper")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("experiment", "scale"),
    [("multitask_llama3", "small"), ("multitask_llama3", "paper"), ("saferpaca_llama3", "small")],
)
def test_no_real_row_that_is_asked_is_trained_on(experiment, scale, real_data, tmp_path) -> None:
    cell = cell_of(experiment, real_data, tmp_path, scale=scale)
    rows = load_mixture(cell.data.parts, root=real_data, held_out=cell.data.held_out)
    trained = {instruction_of(row["part"], row) for row in rows}
    tasks = {each.name: each.task for each in cell.protocols if each.scoring == "loss" or each.benchmark in PROMPTS}
    held = {name: {task.instruction(row) for row in task.rows(root=real_data)} for name, task in tasks.items()}
    assert min(map(len, held.values())) > 100
    assert not trained & set().union(*held.values())
    if experiment == "saferpaca_llama3":
        parts = [row["part"] for row in rows]
        assert parts.count("alpaca") == 10 * parts.count("safety") > 10_000
    asked_of_mmlu = mmlu(share=0.2).task.rows(root=real_data)
    assert (len(asked_of_mmlu), len({row["subject"] for row in asked_of_mmlu})) == (2776, 57)


# A share of MMLU


def test_the_same_share_of_questions_is_asked_whatever_their_order(tmp_path) -> None:
    rows = [f"Which is {n // 2}?," + ",".join(f"{n} {letter}" for letter in "abcd") + f",{n % 4}" for n in range(1000)]

    def questions(share: float | None, rows: list[str]) -> list[tuple]:
        (tmp_path / "mmlu" / "test").mkdir(parents=True, exist_ok=True)
        text = "\n".join(["question,choice0,choice1,choice2,choice3,answer", *rows])
        (tmp_path / "mmlu" / "test" / "tides_test.csv").write_text(text)
        return [(row["question"], *row["choices"]) for row in mmlu(share=share).task.rows(root=tmp_path)]

    whole, fifth, half = (questions(share, rows) for share in (None, 0.2, 0.5))
    assert set(questions(0.2, random.Random(0).sample(rows, len(rows)))) == set(fifth) < set(half) < set(whole)
    assert (len(whole), len(fifth), len(half)) == (1000, pytest.approx(200, abs=40), pytest.approx(500, abs=50))
    assert fifth == [each for each in whole if each in set(fifth)]
    assert len({text for text, *_ in half}) > 300  # of two questions of one text often one alone
    assert [mmlu(share=share).task.published_rows for share in (None, 0.2, 0.5)] == [14_042, 2808, 7021]


def test_a_share_is_part_of_a_protocols_identity_and_leaves_that_of_the_others_as_it_was(repository) -> None:
    assert "share" not in mmlu().identity
    assert mmlu(share=0.2).identity == mmlu().identity | {"share": 0.2}
    committed = read_reference(repository / "results", "tiny").tables["table8"].evaluations
    asked_at = {
        scale: compose_cell("multitask_llama3", "base", scale=scale, seed=0) for scale in ("tiny", "small", "paper")
    }
    tiny = asked_at["tiny"]
    named = {("mmlu", p.name): tiny.eval_job.eval_folder(p).name for p in tiny.protocols if p.benchmark == "mmlu"}
    assert named == {key: name for key, name in committed.items() if key[0] == "mmlu"}
    shares = {scale: [p.share for p in cell.protocols if p.benchmark == "mmlu"] for scale, cell in asked_at.items()}
    assert shares == {"tiny": [None], "small": [0.2], "paper": [None]}
