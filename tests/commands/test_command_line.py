"""A mistake on a command line ends in one sentence with the offending value and the nearest name, and exit code 2."""

import shutil
import subprocess
from argparse import ArgumentParser

import pytest
import yaml

from reproduction.cells.compose import compose
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.nearest import did_you_mean, nearest
from reproduction.cli import TRACEBACK
from reproduction.commands.help import entries
from reproduction.paths import CONFIGS, REPOSITORY

KEYS = ["seed", "results_dir", "train.learning_rate", "train.batch_size", "train.micro_batch_size", "train.save_steps",
        "method.arguments.r", "method.arguments.lora_alpha", "method.arguments.seed", "data.max_length"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("train.lr", ["train.learning_rate"]),
        ("learning_rate", ["train.learning_rate"]),
        ("train.learning_rat", ["train.learning_rate"]),
        ("resultdir", ["results_dir"]),
        ("r", ["method.arguments.r"]),
        ("rank", ["method.arguments.r"]),
        ("method.alpha", ["method.arguments.lora_alpha"]),
        ("seeds", ["seed"]),
        ("batch", ["train.batch_size", "train.micro_batch_size"]),
        ("train.save_step", ["train.save_steps"]),
        ("zzz", []),
        ("", []),
    ],
)
def test_the_nearest_keys_are_those_that_a_name_abbreviates_or_misspells(name, meant):
    assert nearest(name, KEYS) == meant


def test_all_names_are_listed_where_none_is_near():
    assert did_you_mean("tinny", ["paper", "tiny"]) == "did you mean tiny?"
    assert did_you_mean("huge", ["paper", "tiny"]) == "choose paper, tiny"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("train.lr=1e-3", "did you mean train.learning_rate?"),
        ("experimnt=gsm8k_llama3", "did you mean experiment?"),
        ("experiment=multitask_lama3", "did you mean multitask_llama3?"),
        ("scale=tinny", "did you mean tiny?"),
        ("method=idlro", "did you mean idlora?"),
        ("eval=[gsm8k,mmul]", "eval=mmul; did you mean mmlu?"),
        ("model=", "choose llama3_2_3b, "),
        ("hydra/launcher=submitit_slrm", "did you mean submitit_slurm?"),
        ("train=5", "train=5"),
        ("seed==1", "one = sign"),
        ("seed=[1", "'key=[a,b]'"),
        ("overrides=[train.lr=1]", "quote each entry"),
        ("seed", "write seed=…"),
        ("=", "'=' is not key=value"),
        ("", "'' is not key=value"),
        ("mêthod=lora", "did you mean method?"),
        ("seed=1,2", "-m runs the command once for each"),
        ("+seed=2", "give seed=2"),
        ("~sed", "did you mean seed, "),
        ("train.epochs.x=2", "train.epochs is a value"),
    ],
)
def test_an_override_that_hydra_refuses_is_told_in_one_sentence_with_the_way_out(typed, expected):
    with pytest.raises(ConfigError) as refused:
        compose("train", ["scale=tiny", typed] if not typed.startswith("scale") else [typed])
    message = str(refused.value)
    assert expected in message
    assert "\n" not in message
    assert typed.lstrip("+~").partition("=")[0] in message


def test_the_keys_are_those_of_the_chosen_groups():
    with pytest.raises(ConfigError, match=r"did you mean method\.arguments\.num_clusters"):
        compose("train", ["method.arguments.clusters=2"])
    with pytest.raises(ConfigError, match="--help lists the keys"):
        compose("train", ["method=lora", "method.arguments.clusters=2"])


@pytest.mark.parametrize(
    ("script_name", "arguments", "expected"),
    [
        ("train", ["learning_rate=1e-3"], "train.learning_rate"),
        ("train", ["-m", "experiment=gsm8k_llama3,gsm8k_llama", "scale=tiny"], "did you mean gsm8k_llama3?"),
        ("train", ["-m", "seed=1,2", "train.lr=1"], "train.learning_rate"),
        ("train", ["scale=tiny", "+learning_rate=1e-3"], "did you mean train.learning_rate"),
        ("train", ["scale=tiny", "+trian.max_steps=4"], "did you mean train.max_steps"),
        ("train", ["scale=tiny", "data.max_length=-1"], "error: data.max_length is -1: it must be 2 or more ("),
        ("train", ["scale=tiny", "data_root=${model.pth_or_id}"], "did you mean model.path_or_id?"),
        ("train", ["scale=tiny", "seed=abc"], "'abc'"),
        ("train", ["scale=tiny", "threads=abc"], "error: threads: "),
        ("train", ["scale=tiny", "eval=[]"], "eval has no benchmark"),
        ("train", ["scale=tiny", "allow_code_execution=abc"], "'abc'"),
        ("train", ["--config-name", "trian"], "did you mean train?"),
        ("train", ["--config-dir", "nowhere"], "nowhere"),
        ("train", ["--scale", "tiny"], "key=value"),
        ("report", ["table=tabel1"], "did you mean table1?"),
        ("counts", ["table=tabel6"], "did you mean table6?"),
        ("benchmark", ["suite=cpuu"], "did you mean cpu?"),
        ("audit", ["--scale", "tinny"], "did you mean tiny?"),
        ("rebuild", ["--scale", "tinny"], "did you mean tiny?"),
    ],
)  # fmt: skip
def test_a_script_ends_with_exit_code_2_and_without_a_traceback(
    script, monkeypatch, tmp_path, script_name, arguments, expected
):
    monkeypatch.chdir(tmp_path)
    done = script(script_name, *arguments)
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert expected in line
    assert "HYDRA_FULL_ERROR" not in line
    assert not list(tmp_path.glob("results/*/runs"))


def test_the_traceback_is_shown_on_request(script, monkeypatch):
    monkeypatch.setenv(TRACEBACK, "1")
    with pytest.raises(ConfigError, match=r"train\.learning_rate"):
        script("train", "train.lr=1")


@pytest.mark.parametrize("root", sorted(path.stem for path in CONFIGS.glob("[a-z]*.yaml")))
def test_every_key_and_group_of_a_config_is_described_beside_it(root):
    described = {entry.name: entry.words for entry in entries(root)}
    assert {name for name, words in described.items() if not words} == set()
    written = yaml.safe_load((CONFIGS / f"{root}.yaml").read_text(encoding="utf-8"))
    groups = {name for each in written.pop("defaults", ()) if isinstance(each, dict) for name in each}
    assert {name.removeprefix("optional ") for name in groups} | set(written) <= set(described)


def test_the_keys_of_the_optimiser_are_those_of_train(script):
    keys = {entry.name for entry in entries("train")}
    assert {f"train.{key}" for key in yaml.safe_load((CONFIGS / "train/default.yaml").read_text())} <= keys
    assert not [entry.name for entry in entries("pivots") if entry.name.startswith("train.")]
    helped = script("train", "scale=tiny", "method=lora", "--help").stdout
    lines = {line.split()[0]: line for line in helped.splitlines() if line.startswith("  ") and line.strip()}
    assert "passes over the training set" in lines["train.epochs=1"]
    assert "idlora (+" in " ".join(helped.split())
    assert "eval=[gsm8k,heldout]" in lines
    assert script("train", "scale=tinny", "--help").returncode == 2
    assert script("train", "-m", "method=lora,idlora", "--help").stdout == script("train", "--help").stdout


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPOSITORY / "scripts").glob("*.py")))
def test_the_help_of_a_script_is_a_page_that_says_what_its_keys_mean(script, monkeypatch, name):
    shown: list[ArgumentParser] = []
    monkeypatch.setattr(ArgumentParser, "print_help", lambda parser: shown.append(parser))
    done = script(name, "--help")
    assert done.returncode == 0
    for parser in shown:
        assert not [action.dest for action in parser._actions if not action.help]
    lines = (shown[0].format_help() if shown else done.stdout).splitlines()
    assert len(lines) <= 65
    assert max(map(len, lines)) <= 100
    if not shown:
        assert f"python scripts/{name}.py" in lines[2]
        assert "keys, with their defaults:" in lines


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_refuses_a_variable_that_sets_nothing_and_passes_the_others_on(repository):
    def make(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["make", "-n", "--no-print-directory", *arguments], cwd=repository, capture_output=True, text=True
        )

    refused = make("check", "SCLAE=paper")
    assert refused.returncode == 2
    assert "SCLAE=paper sets nothing here: the variables are SCALE" in refused.stderr
    done = make("check", "SCALE=paper", "TABLE=table2", "SEEDS=0,1", "gpus=2", "memory_gb=80", "FLAGS=a=1 b=2")
    assert done.returncode == 0
    command = " ".join(done.stdout.replace("\\\n", " ").split())
    assert command.endswith(
        "scripts/check.py scale=paper table=table2 seeds=[0,1] allow_code_execution=true gpus=2 memory_gb=80 a=1 b=2"
    )
    variables = {line.split()[0] for line in (repository / "Makefile").read_text().splitlines() if " ?=" in line}
    assert all(name in refused.stderr for name in variables)
