"""README and docs/ show the committed results, and their programs and commands work."""

import csv
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproduction.cells.compose import compose
from reproduction.report.real import listed, real_sentences, summary_table, verdict
from reproduction.report.real.facts import Facts

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [
    REPOSITORY / "README.md",
    *sorted(path for path in (REPOSITORY / "docs").glob("*.md") if path.name != "adding.md"),  # see test_adding.py
]
HUB_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def shown(page: Path, name: str) -> str:
    """Return the text between a page's marks <!-- name --> and <!-- /name -->."""
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", page.read_text(), re.DOTALL)[1].strip()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every command of a page; <a placeholder> is one word."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(re.sub(r"<[^<>]+>", "placeholder", line), comments=True):
                yield words


@pytest.mark.parametrize(
    ("page", "name", "source"),
    [
        ("docs/results.md", "table1", "reference/tiny/tables/table1.md"),
        ("docs/benchmark.md", "benchmark", "h200/benchmark.md"),
        ("docs/paper-scale.md", "training", "h200/training.md"),
        ("docs/speed.md", "trainer", "h100/trainer.md"),
        ("docs/speed.md", "evaluation", "h100/evaluation.md"),
    ],
)
def test_the_tables_of_the_pages_are_the_committed_ones(page, name, source, repository):
    table = shown(repository / page, name)
    assert table in (repository / "results" / source).read_text()
    assert table.count("\n") > 3


def test_the_pages_say_of_a_real_model_what_the_program_says(repository):
    folders = repository / "results", repository / "experiments"
    assert shown(repository / "docs/results.md", "real") == listed(real_sentences(*folders)).strip()
    assert shown(repository / "README.md", "verdict") == verdict(*folders)
    assert shown(repository / "README.md", "summary") == summary_table(*folders)


def test_the_numbers_in_the_readmes_sentences_are_those_of_the_results(repository):
    text, results = " ".join((repository / "README.md").read_text().split()), repository / "results"
    with (results / "audit" / "audit.csv").open() as file:
        claims = list(csv.DictReader(file))
    failing = [row for row in claims if row["verdict"] == "does not hold"]
    holding, otherwise = (
        sum(row["verdict"] == "holds" for row in claims),
        sum(": holds" in r["note"] for r in failing),
    )
    assert f"Of {len(claims)} claims with a number or an ordering, {holding} hold" in text
    assert f"{len(failing)} do not as worded ({otherwise} of these do in another reading)" in text
    assert f"and {len(claims) - holding - len(failing)} cannot be decided" in text
    facts = Facts(results, repository / "experiments")
    with (results / "counts" / "table6.csv").open() as file:
        counted = {(row["method"], row["rank"]): int(row["trainable"]) for row in csv.DictReader(file)}
    assert f"{100 * counted['idlora', '128'] / counted['lora', '32']:.0f} % as many parameters train" in text
    controls = [facts.controls.pairs["idlora", other, "loss"] for other in ("idlora_random", "idlora_gaussian")]
    random, gaussian = (pair.amount.split(" [")[0] for pair in controls)
    assert [pair.verdict for pair in controls] == ["ahead of", "behind"]
    assert f"ahead of rows at random {random} nats a token, and behind random Gaussian bases {gaussian}." in text
    with (results / "h200" / "benchmark.csv").open() as file:
        rows = {(row["scenario"], row["variant"]): row for row in csv.DictReader(file)}

    def times(phases: str, quantity: str = "median_ms") -> str:
        ratios = []
        for (scenario, variant), own in rows.items():
            lora = rows.get((scenario, "lora"), own)
            if variant == "idlora" and re.match(phases, scenario) and {own["status"], lora["status"]} == {"done"}:
                ratios += [float(own[quantity]) / float(lora[quantity])] if lora is not own else []
        return " to ".join(dict.fromkeys(f"{end:.2f}" for end in (min(ratios), max(ratios))))

    assert f"a training step takes {times('train')} of the time" in text
    assert f"and {times('train', 'peak_above_weights_mib')} of the memory above the weights" in text
    assert f"inference {times('prefill|decode')} of the time" in text
    assert f"the file {times('decode_eager_1', 'adapter_file_bytes')} of the size" in text


@every_page
def test_a_page_names_files_and_targets_that_exist(page):
    text = page.read_text()
    top = "|".join(path.name for path in REPOSITORY.iterdir() if path.is_dir())
    named = re.findall(rf"`((?:{top})/[\w/.-]+)`", text)
    links = [page.parent / target for target in re.findall(r"\]\(([^)#:]+)\)", text)]
    assert not [name for name in named if not (REPOSITORY / name).exists()]
    assert not [str(link) for link in links if not link.exists()]
    targets = set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, re.MULTILINE))
    rules = re.findall(r"^([a-z][\w -]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert targets <= {name for rule in rules for name in rule.split()}


@every_page
def test_a_pages_commands_are_understood_by_their_scripts(page, script):
    for words in commands(page):
        if words[0] == "make":
            done = subprocess.run(["make", "-n", *words[1:]], cwd=REPOSITORY, capture_output=True, text=True)
            assert done.returncode == 0, f"{words}: {done.stderr}"
            started = [
                shlex.split(line)
                for line in done.stdout.replace("\\\n", " ").splitlines()
                if " scripts/" in line and "$" not in line
            ]
        else:
            started = [words]
        for each in started:
            understood(each, script)


def understood(words: list[str], script) -> None:
    """Compose a Hydra script's config with the words of a command, or find the options in another script's help."""
    program, *arguments = words
    if program in ("pip", "hf"):
        return
    assert re.search(r"(^|/)python$", program), words
    path = next(argument for argument in arguments if argument.startswith("scripts/"))
    arguments = arguments[arguments.index(path) + 1 :]
    if config := re.search(r'@hydra_command\("(\w+)"\)', (REPOSITORY / path).read_text()):
        if "-m" in arguments:  # one of the values that a sweep runs over
            arguments = [each.partition(",")[0] for each in arguments]
        compose(config[1], [each for each in arguments if not re.match(r"-m$|hydra[/.]", each)])
    else:
        help_ = script(Path(path).stem, "--help").stdout
        assert not [each for each in arguments if each.startswith("--") and each.split("=")[0] not in help_], words


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small Llama with random weights, with rows enough for the settings of the pages."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=320, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "python")],
    ids=lambda path: path.name,
)
def test_a_pages_programs_run(page, tiny_llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for program in blocks(page, "python"):
        exec(compile(program.replace(HUB_MODEL, str(tiny_llama)), str(page), "exec"), names)
    assert names["model"].peft_config
    assert list(tmp_path.rglob("adapter_model.safetensors"))


def test_what_the_method_page_says_of_the_learning_rate_is_measured(repository):
    with (repository / "results/reference/small/tables/rates.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    text = " ".join((repository / "docs/method.md").read_text().split())

    def times(quantity: str) -> float:
        return float(rows["idlora"][quantity]) / float(rows["lora"][quantity])

    assert f"frozen rows are {times('a_row_norm'):.1f} times as long" in text
    assert f"changes a layer's output {times('first_update'):.1f} times as much" in text
    assert times("best_rate") == 0.5


def test_the_readme_is_read_in_two_minutes(repository):
    assert len((repository / "README.md").read_text().splitlines()) <= 150
