"""What stands beside the code: the workflows, the citation, and the pages for contributors name what exists."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, PeftConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

import idlora
from idlora import IdLoraConfig

WORKFLOWS = ("tests", "wheel")


def make_targets(repository: Path) -> set[str]:
    rules = re.findall(r"^([a-z][\w ]*):", (repository / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return {name for rule in rules for name in rule.split()}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_runs_commands_that_exist_on_pinned_actions_within_a_time(name: str, repository: Path) -> None:
    text = (repository / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"].values()
    steps = [step for job in jobs for step in job["steps"]]
    assert all(job["timeout-minutes"] <= 60 for job in jobs)
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    commands = "\n".join(step.get("run", "") for step in steps)
    assert set(re.findall(r"\bmake ([a-z]\w*)", commands)) <= make_targets(repository)
    assert name == "wheel" or {"setup", "lint", "test"} == set(re.findall(r"\bmake ([a-z]\w*)", commands))
    for path in re.findall(r"[\w./-]+\.lock|reproduction/[\w/]+", commands):
        assert (repository / path).exists(), path
    for example in re.findall(r"for example in ([\w ]+);", commands):
        assert sorted(example.split()) == sorted(path.stem for path in (repository / "examples").glob("*.py"))


def test_there_is_no_other_workflow(repository: Path) -> None:
    assert {path.stem for path in (repository / ".github" / "workflows").iterdir()} == set(WORKFLOWS)


def test_the_citation_is_of_this_version_and_of_the_paper_that_the_cards_cite(repository: Path) -> None:
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = citation["references"]
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == idlora.__version__
    assert f"{idlora.__version__}\n" in (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    authors = tuple(f"{each['given-names']} {each['family-names']}" for each in paper["authors"])
    expected = IdLoraConfig.paper
    assert (paper["title"], authors, paper["year"]) == (expected.title, expected.authors, expected.year)
    assert paper["url"].endswith(expected.arxiv)


def test_the_page_for_contributors_is_short_and_names_what_exists(repository: Path) -> None:
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert set(re.findall(r"(?:`|^    )make ([a-z]\w*)", text, re.MULTILINE)) <= make_targets(repository)
    named = re.findall(r"`((?:[\w.]+/)+[\w.]*|[\w.]+\.(?:lock|toml|md))`", text) + re.findall(r"\]\(([\w./]+)\)", text)
    missing = [path for path in named if not (repository / path).exists()]
    assert len(named) > 5
    assert not missing


def test_the_entry_for_peft_s_comparison_loads_and_trains_the_number_that_its_page_says(repository: Path) -> None:
    folder = repository / "experiments" / "peft_method_comparison"
    (entry,) = folder.glob("*/*/adapter_config.json")
    assert len(entry.relative_to(folder).parts) == 3  # PEFT's run.py takes experiments/<method>/<name>
    configs = {
        f"{entry.parts[-3]}/{entry.parts[-2]}": PeftConfig.from_pretrained(entry.parent),
        "lora/llama-3.2-3B-rank32": LoraConfig(r=32, task_type="CAUSAL_LM"),
    }
    shape = yaml.safe_load((repository / "configs" / "model" / "llama3_2_3b.yaml").read_text(encoding="utf-8"))["shape"]
    page = (folder / "README.md").read_text(encoding="utf-8")
    for name, config in configs.items():
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(**shape))
        trained, _ = get_peft_model(model, config).get_nb_trainable_parameters()
        assert re.search(rf"`{name}` \| {config.r} \| {trained:,} \|", page), f"{name}: {trained:,}"
    assert isinstance(config_of_ours := configs["idlora/llama-3.2-3B-rank128"], IdLoraConfig)
    assert config_of_ours.init_weights, "pivots are selected"
