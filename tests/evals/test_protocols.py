"""A benchmark's named protocols: which of them a cell is evaluated under, and what tells their folders apart."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.from_config import compose_cell
from reproduction.evals.sandbox import ExecutionRefused
from reproduction.paths import CONFIGS
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
        group = f"eval=[{','.join(DEFAULTS)}]"
        asked = [f"results_dir={tmp_path}", group, *overrides]
        return compose_cell("gsm8k_llama3", "lora", scale=scale, seed=0, overrides=asked)

    return compose


def names(cell) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for protocol in cell.protocols:
        found.setdefault(protocol.benchmark, []).append(protocol.name)
    return found


def test_default_all_and_names_choose_and_a_benchmark_without_the_name_keeps_its_default(cell) -> None:
    assert names(cell()) == names(cell("protocol=default")) == DEFAULTS
    assert names(cell("protocol=all")) == EVERY
    assert names(cell("protocol=5shot")) == DEFAULTS | {"gsm8k": ["5shot"]}
    assert names(cell("protocol=[default,5shot]")) == DEFAULTS | {"gsm8k": ["0shot", "5shot"]}
    several = names(cell("protocol=[0shot,generated_5shot,raw_t0.2,likelihood_0shot]"))
    assert several == DEFAULTS | {
        "mmlu": ["likelihood_0shot", "generated_5shot"],
        "commonsenseqa": ["likelihood_0shot", "generated_5shot"],
        "humaneval": ["raw_t0.2"],
    }


def test_at_the_papers_scale_mmlu_is_five_shot_in_the_raw_layout(cell) -> None:
    by_name = {p.benchmark: p for p in cell(scale="paper").protocols}
    mmlu = by_name["mmlu"]
    assert (mmlu.name, mmlu.num_fewshot, mmlu.scoring, mmlu.layout) == ("likelihood_5shot", 5, "likelihood", "raw")
    assert by_name["commonsenseqa"].name == "likelihood_0shot"
    assert cell().protocols[-1].layout == "template"


def test_every_protocol_asks_what_its_name_says(cell) -> None:
    for protocol in cell("protocol=all").protocols:
        if protocol.benchmark == "humaneval":
            layout, temperature = protocol.name.split("_t")
            assert (protocol.layout, protocol.temperature) == (layout, float(temperature))
            assert (protocol.samples, protocol.top_p) == (10, 0.95)
        elif protocol.name != "greedy":
            assert f"{protocol.num_fewshot}shot" in protocol.name
            assert protocol.temperature == 0
        if protocol.benchmark in ("mmlu", "commonsenseqa"):
            assert protocol.name.startswith(protocol.scoring)


def test_protocols_have_folders_of_their_own_and_a_name_alone_changes_none(cell) -> None:
    subject = cell("protocol=all").eval_job
    folders = {subject.eval_folder(protocol) for protocol in subject.protocols}
    assert len(folders) == len(subject.protocols)
    for protocol in subject.protocols:
        renamed = dataclasses.replace(protocol, name="mine")
        raised = dataclasses.replace(protocol, protocol_version=protocol.protocol_version + 1)
        assert subject.eval_folder(renamed) == subject.eval_folder(protocol)
        assert subject.eval_folder(raised) != subject.eval_folder(protocol)
        assert subject.eval_folder(protocol).name.startswith(f"{protocol.benchmark}-")


def test_one_protocols_folder_is_the_same_whatever_is_chosen_beside_it(cell) -> None:
    def folders(*overrides: str) -> dict[tuple[str, str], str]:
        subject = cell(*overrides).eval_job
        return {(p.benchmark, p.name): subject.eval_folder(p).name for p in subject.protocols}

    every = folders("protocol=all")
    assert folders().items() <= every.items()
    assert folders("protocol=5shot").items() <= every.items()


def test_other_questions_in_a_subjects_folder_are_another_evaluation(cell, tmp_path: Path) -> None:
    world = tmp_path / "world"
    shutil.copytree(cell().data_root, world)
    group = ["eval=[mmlu,commonsenseqa]", f"data_root={world}"]

    def folders() -> list[str]:
        subject = cell(*group).eval_job
        return [subject.eval_folder(protocol).name for protocol in subject.protocols]

    before = folders()
    path = sorted((world / "mmlu" / "test").glob("*.csv"))[0]
    path.write_text(path.read_text() + "One more?,1,2,3,4,0\n")
    mmlu, commonsenseqa = folders()
    assert mmlu != before[0]
    assert commonsenseqa == before[1]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["protocol=9shot"], ["protocol=9shot", "likelihood_5shot", "default", "all"]),
        (["+eval.gsm8k.num_fewshot=3"], ["eval.gsm8k.num_fewshot", "eval.gsm8k.protocols.0shot"]),
        (["eval.gsm8k.default=[7shot]"], ["eval.gsm8k.default", "7shot", "0shot, 5shot"]),
        (["+eval.mmlu.protocols.odd={scoring: guess}", "protocol=odd"], ["eval.mmlu.protocols.odd", "guess"]),
        (["+eval.mmlu.protocols.odd={shots: 3}", "protocol=odd"], ["eval.mmlu.protocols.odd.shots", "num_fewshot"]),
        (["+eval.odd={benchmark: mmlu, protocols: {}}"], ["eval.odd has no default"]),
        (["eval.gsm8k.benchmark=gsm9k"], ["eval.gsm8k", "'gsm9k' is none of the tasks", "gsm8k"]),
        (["+eval.gsm8k.file=nowhere.py"], ["eval.gsm8k", "nowhere.py"]),
    ],
)
def test_a_name_or_setting_that_no_protocol_has_is_refused_with_the_way_out(overrides, words, cell) -> None:
    with pytest.raises(ConfigError) as refused:
        cell(*overrides)
    for word in words:
        assert word in str(refused.value)


def test_a_protocol_of_ones_own_can_be_given_on_the_command_line(cell) -> None:
    own = cell("+eval.gsm8k.protocols.three={num_fewshot: 3}", "protocol=three")
    assert [(p.name, p.num_fewshot) for p in own.protocols if p.benchmark == "gsm8k"] == [("three", 3)]


def test_a_benchmark_of_ones_own_on_the_hub_is_read_at_a_revision_of_ones_own(cell, tmp_path: Path) -> None:
    own = tmp_path / "capitals.py"
    own.write_text(
        "from reproduction.data import DatasetSpec\nfrom reproduction.evals.task import Task\n\n"
        "class Own(Task):\n    data = DatasetSpec('capitals', ('country',), {'test': 'test'}, 'someone/capitals')\n\n"
        "TASK = Own()\n"
    )
    group = (
        f"+eval.capitals={{benchmark: capitals, file: {own}, protocol_version: 1, max_new_tokens: 8, "
        "default: [greedy], protocols: {greedy: {temperature: 0}}}"
    )
    assert cell(group, "+revisions.capitals=abc").eval_job.revisions["capitals"] == "abc"
    with pytest.raises(ConfigError, match=r"revisions\.capitals is of no data set of the hub"):
        cell("+revisions.capitals=abc")


def test_no_protocol_is_called_what_chooses_among_them() -> None:
    for path in (CONFIGS / "eval").glob("*.yaml"):
        for values in yaml.safe_load(path.read_text()).values():
            assert not {"default", "all"} & set(values["protocols"])


def test_one_pass_records_every_chosen_protocol(cell, tmp_path: Path) -> None:
    from oracle import TOKENIZER, small_model

    limits = [f"eval.{name}.limit=2" for name in ("gsm8k", "mmlu", "commonsenseqa")]
    group, short = "eval=[gsm8k,mmlu,commonsenseqa]", "eval.gsm8k.max_new_tokens=2"
    composed = cell(group, *limits, short, "protocol=all")
    loads = []

    def load():
        loads.append(1)
        return small_model(), TOKENIZER

    subject = dataclasses.replace(
        composed.eval_job, load=load, identity=lambda: "small", folder=tmp_path / "run", threads=1
    )
    assert len(subject.waiting) == 11
    folders = evaluate(subject)
    assert len(set(folders)) == 2 + 5 + 4
    assert loads == [1]
    assert not subject.waiting
    assert evaluate(subject) == folders
    assert loads == [1]


def test_an_evaluation_that_runs_code_is_refused_before_the_first_question_of_any(cell) -> None:
    subject = cell("eval=[gsm8k,humaneval]").eval_job
    with pytest.raises(ExecutionRefused, match="allow_code_execution"):
        evaluate(dataclasses.replace(subject, load=lambda: pytest.fail("the model was loaded")))
    assert not subject.folder.exists()
