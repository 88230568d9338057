"""Protocols and benchmarks: which a cell is evaluated under, what tells their folders apart, what is refused."""

import dataclasses
from pathlib import Path

import pytest
from oracle import TOKENIZER, small_model
from steps import scored

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.evals import Protocol
from reproduction.evals.sandbox import ExecutionRefused
from reproduction.evals.task import file_digest, load_task
from reproduction.records import read_json
from reproduction.running.evaluate import evaluate

DEFAULTS = {
    "gsm8k": ["0shot"], "humaneval": ["template_t0.6"], "hexphi": ["greedy"], "hexphi_benign": ["greedy"],
    "mmlu": ["likelihood_0shot"], "commonsenseqa": ["likelihood_0shot"],
}  # fmt: skip
CHOICES = ["likelihood_0shot", "likelihood_5shot", "generated_0shot", "generated_5shot"]
EVERY = DEFAULTS | {
    "gsm8k": ["0shot", "5shot"], "mmlu": [CHOICES[0], "likelihood_0shot_fifth", *CHOICES[1:]], "commonsenseqa": CHOICES,
    "humaneval": ["template_t0.6", "template_t0.2", "template_t0.8", "raw_t0.2", "raw_t0.8"],
}  # fmt: skip


@pytest.fixture
def cell(tmp_path: Path):
    def compose(*overrides: str, scale: str = "tiny"):
        asked = [f"results_dir={tmp_path}", f"eval=[{','.join(DEFAULTS)}]", *overrides]
        return compose_cell("gsm8k_llama3", "lora", scale=scale, seed=0, overrides=asked)

    return compose


def names(cell) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for protocol in cell.protocols:
        found.setdefault(protocol.benchmark, []).append(protocol.name)
    return found


def test_default_all_and_names_choose_and_a_benchmark_without_the_name_keeps_its_default(cell) -> None:
    assert names(cell()) == DEFAULTS
    assert names(cell("protocol=[default,5shot]")) == DEFAULTS | {"gsm8k": ["0shot", "5shot"]}
    several = names(cell("protocol=[5shot,generated_5shot,raw_t0.2,likelihood_0shot]"))
    quizzed = ["likelihood_0shot", "generated_5shot"]
    assert several == DEFAULTS | {
        "gsm8k": ["5shot"], "mmlu": quizzed, "commonsenseqa": quizzed, "humaneval": ["raw_t0.2"],
    }  # fmt: skip
    own = cell("+eval.gsm8k.protocols.three={num_fewshot: 3}", "protocol=three")
    assert [(p.name, p.num_fewshot) for p in own.protocols if p.benchmark == "gsm8k"] == [("three", 3)]


def test_every_protocol_asks_what_its_name_says_and_has_a_folder_that_its_name_has_no_part_in(cell) -> None:
    every = cell("protocol=all")
    assert names(every) == EVERY
    job = every.eval_job
    folders = {(p.benchmark, p.name): job.eval_folder(p) for p in job.protocols}
    assert len(set(folders.values())) == len(job.protocols)
    for protocol in job.protocols:
        if protocol.benchmark == "humaneval":
            layout, temperature = protocol.name.split("_t")
            assert (protocol.layout, protocol.temperature) == (layout, float(temperature))
            assert (protocol.samples, protocol.top_p) == (10, 0.95)
        elif protocol.name != "greedy":
            assert f"{protocol.num_fewshot}shot" in protocol.name
            assert protocol.temperature == 0
        if protocol.benchmark in ("mmlu", "commonsenseqa"):
            assert protocol.name.startswith(protocol.scoring)
        folder = folders[protocol.benchmark, protocol.name]
        raised = dataclasses.replace(protocol, protocol_version=protocol.protocol_version + 1)
        assert job.eval_folder(dataclasses.replace(protocol, name="mine")) == folder != job.eval_folder(raised)
    few = cell("protocol=5shot").eval_job
    assert all(few.eval_folder(p).name == folders[p.benchmark, p.name].name for p in few.protocols)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["protocol=9shot"], ["protocol=9shot", "likelihood_5shot", "default", "all"]),
        (["+eval.gsm8k.num_fewshot=3"], ["eval.gsm8k.num_fewshot", "eval.gsm8k.protocols.0shot"]),
        (["eval.gsm8k.default=[7shot]"], ["eval.gsm8k.default", "7shot", "0shot, 5shot"]),
        (["+eval.mmlu.protocols.odd={scoring: guess}", "protocol=odd"], ["eval.mmlu.protocols.odd", "guess"]),
        (["+eval.mmlu.protocols.odd={shots: 3}", "protocol=odd"], ["eval.mmlu.protocols.odd.shots", "num_fewshot"]),
        (["+eval.odd={benchmark: mmlu, protocols: {}}"], ["eval.odd has no default"]),
        (["eval.gsm8k.benchmark=gsm9k"], ["eval.gsm8k", "'gsm9k' is none of the tasks"]),
        (["+eval.gsm8k.file=nowhere.py"], ["eval.gsm8k", "nowhere.py"]),
        (["+revisions.capitals=abc"], ["revisions.capitals"]),
    ],
)
def test_a_name_or_setting_that_no_protocol_has_is_refused_with_the_key(overrides, words, cell) -> None:
    with pytest.raises(ConfigError) as refused:
        cell(*overrides)
    assert [word for word in words if word not in str(refused.value)] == []


def test_one_pass_records_every_chosen_protocol_and_code_is_refused_before_the_first_question(cell, tmp_path) -> None:
    limits = [f"eval.{name}.limit=2" for name in ("gsm8k", "mmlu", "commonsenseqa")]
    job = cell("eval=[gsm8k,mmlu,commonsenseqa]", *limits, "eval.gsm8k.max_new_tokens=2", "protocol=all").eval_job
    loads = []
    job = dataclasses.replace(
        job, load=lambda: loads.append(1) or (small_model(), TOKENIZER), identity=lambda: "small",
        folder=tmp_path / "run", threads=1,
    )  # fmt: skip
    folders = evaluate(job)
    assert len(set(folders)) == 2 + 5 + 4
    assert not job.waiting
    assert evaluate(job) == folders
    assert loads == [1]
    running = cell("eval=[gsm8k,humaneval]").eval_job
    with pytest.raises(ExecutionRefused, match="allow_code_execution"):
        evaluate(dataclasses.replace(running, load=lambda: pytest.fail("the model was loaded")))
    assert not running.folder.exists()


# Benchmarks as files

OWN = """
from __future__ import annotations

import dataclasses

from reproduction.data import DatasetSpec
from reproduction.evals.task import Task


@dataclasses.dataclass
class Capitals(Task):
    data: DatasetSpec = dataclasses.field(
        default_factory=lambda: DatasetSpec("capitals", ("country",), {"test": "test"}, "someone/capitals")
    )

    def instruction(self, row):
        return row["country"], ""

    def read(self, row, raw):
        return {"parsed": raw, "gold": "Lima", "scores": {"exact": float(raw == "Lima")}, "length": len(raw)}


TASK = Capitals()
"""


def test_a_file_of_ones_own_is_a_benchmark_and_its_content_part_of_what_is_asked(cell, tmp_path: Path) -> None:
    own = tmp_path / "capitals.py"
    own.write_text(OWN)
    settings = {"benchmark": "capitals", "protocol_version": 1, "file": own, "max_new_tokens": 8}
    rows = [{"id": str(n), "country": "Peru"} for n in range(2)]
    found = scored(Protocol(**settings), rows, ["Lima", "Quito"], tmp_path)
    assert [(r["parsed"], r["scores"], r["length"]) for r in found] == [
        ("Lima", {"exact": 1}, 4), ("Quito", {"exact": 0}, 5),
    ]  # fmt: skip
    assert read_json(tmp_path / "eval" / "meta.json")["protocol"]["file"] == str(own)
    group = f"+eval.capitals={{benchmark: capitals, file: {own}, protocol_version: 1, max_new_tokens: 8, "
    group += "default: [greedy], protocols: {greedy: {temperature: 0}}}"
    assert cell(group, "+revisions.capitals=abc").eval_job.revisions["capitals"] == "abc"
    before = Protocol(**settings).identity
    moved = own.rename(tmp_path / "moved.py")
    assert Protocol(**settings | {"file": moved}).identity == before
    moved.write_text(OWN + "\n# another\n")
    assert Protocol(**settings | {"file": moved}).identity == before | {"file": file_digest(moved)} != before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"no \.py file"),
        ("TASK = 3\n", "no benchmark"),
        ("def f(:\n", r"SyntaxError: invalid syntax .*line 1"),
        ("import nowhere_at_all\n", "No module named 'nowhere"),
    ],
)
def test_a_file_that_is_no_benchmark_is_refused_by_its_name(text, words, tmp_path) -> None:
    path = tmp_path / "capitals.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=rf"capitals\.py.*{words}"):
        load_task("capitals", path)


GREEDY = {"benchmark": "gsm8k", "max_new_tokens": 8}
LIKELIHOOD = {"benchmark": "mmlu", "scoring": "likelihood"}
SAFETY = {"benchmark": "safety_prompts", "max_new_tokens": 8, "judge": "prefix"}
LOSS = {"benchmark": "heldout", "scoring": "loss"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**GREEDY, "benchmark": "gsm9k"}, "'gsm9k' is none of the tasks: choose one of commonsenseqa, gsm8k"),
        ({**GREEDY, "benchmark": "hexphi"}, "hexphi needs a judge: one of prefix"),
        ({**GREEDY, "benchmark": "hexphi", "judge": "gpt"}, "'gpt' is none of the judges"),
        ({**GREEDY, "benchmark": "humaneval", "num_fewshot": 3}, "num_fewshot=3"),
        ({**GREEDY, "benchmark": "humaneval", "samples": 10}, "samples=10"),
        ({**GREEDY, "samples": 5, "temperature": 0.5}, "samples=5"),
        ({**GREEDY, "samples": 0}, "samples=0"),
        ({**GREEDY, "num_fewshot": -1}, "num_fewshot=-1"),
        ({**GREEDY, "max_new_tokens": 0}, "max_new_tokens=0"),
        ({**GREEDY, "max_new_tokens": None}, "max_new_tokens=None"),
        ({**GREEDY, "temperature": -1.0}, "temperature=-1"),
        ({**GREEDY, "top_p": 0.0}, "top_p=0"),
        ({**GREEDY, "top_p": 1.5}, "top_p=1.5"),
        ({**GREEDY, "limit": 0}, "limit=0"),
        ({**GREEDY, "execution_seconds": 0.0}, "execution_seconds=0"),
        ({**GREEDY, "layout": "raw"}, "layout='raw'"),
        ({**GREEDY, "source": "alpaca"}, "source='alpaca'"),
        ({**LIKELIHOOD, "scoring": "guess"}, "scoring='guess': give one of generated, likelihood"),
        ({**LIKELIHOOD, "max_new_tokens": 8}, "max_new_tokens=8"),
        ({**LIKELIHOOD, "scoring": "generated", "max_new_tokens": 8, "temperature": 0.5}, "temperature=0.5"),
        ({**LIKELIHOOD, "judge": "prefix"}, "judge='prefix'"),
        ({**LIKELIHOOD, "benchmark": "gsm8k"}, "scoring='likelihood'"),
        ({**LIKELIHOOD, "share": 0}, "share=0"),
        ({**LIKELIHOOD, "share": 1}, "share=1"),
        ({**LIKELIHOOD, "share": 0.2, "source": "gsm8k"}, "source='gsm8k'"),
        ({**LIKELIHOOD, "share": 0.2, "benchmark": "commonsenseqa"}, "share=0.2"),
        (SAFETY, "share=None"),
        ({**SAFETY, "share": 0.1, "source": "alpaca"}, "source='alpaca'"),
        ({**LOSS, "source": "alpacca"}, "source='alpacca' is none of gsm8k, codealpaca"),
        ({**LOSS, "source": "alpaca"}, "share=None"),
        ({**LOSS, "source": "humaneval", "share": 0.5}, "share=0.5"),
    ],
)  # fmt: skip
def test_a_protocol_that_makes_no_sense_is_refused_with_the_value(changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        Protocol(protocol_version=1, **changes)
