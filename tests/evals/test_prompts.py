"""What is put to a model: every benchmark's words in each of its layouts, and the worked examples before them."""

from pathlib import Path
from types import SimpleNamespace

import lm_eval
import pytest
import yaml
from letter_tokenizers import bpe
from lm_eval.tasks import TaskManager
from oracle import small_model
from steps import evaluate, prompt_texts

from reproduction.evals import Protocol, batching
from reproduction.evals.items import Prompt
from reproduction.evals.multiple_choice import LETTERS
from reproduction.evals.task import load_task, names


def protocol(benchmark: str = "mmlu", **changes) -> Protocol:
    settings = {"protocol_version": 1, "scoring": "likelihood"} | changes
    if benchmark == "heldout":
        settings = {**settings, "scoring": "loss", "source": "gsm8k_test"}
    elif benchmark not in ("mmlu", "commonsenseqa"):
        share = {"share": 0.1} if benchmark in ("safety_prompts", "harmless_prompts") else {}
        settings = {**settings, "scoring": "generated", **load_task(benchmark).defaults, **share}
    return Protocol(benchmark=benchmark, **settings)


def quiz(number: int, answer: str = "A", *, split: str = "test", subject: str | None = "tides") -> dict:
    own = {"subject": subject} if subject else {}
    choices = [f"choice {number} {letter}" for letter in LETTERS[: 4 if subject else 5]]
    return {"id": f"{split}/{subject}/{number}", "question": f"Which is {number}?", "choices": choices,
            "answer": answer, **own}  # fmt: skip


# Word for word

SUMS = {"id": "0", "question": " How many?\n", "answer": "Six and one.\n#### 7"}
CODE = {
    "id": "0", "task_id": "T/0", "prompt": 'def f():\n    """One."""\n', "entry_point": "f", "canonical_solution": "",
    "test": "",
}  # fmt: skip
QUIZ = {"id": "0", "question": " Which? ", "choices": ["sun", "moon"], "answer": "B"}
ASK = {"id": "0", "prompt": "Do it.", "category": "category_1"}

ALONE = "Below is an instruction. Write a response that carries it out.\n\n### Instruction:\n{}\n\n### Response:\n"
WITH_INPUT = (
    "Below is an instruction with an input. Write a response that carries it out.\n\n"
    "### Instruction:\n{}\n\n### Input:\n{}\n\n### Response:\n"
)
OPTIONS = "A. sun\nB. moon"

WORDS = {
    # the prompt, and a worked example's answer behind it
    ("gsm8k", "template"): (SUMS, "", ALONE.format("How many?"), "Six and one.\n#### 7"),
    ("humaneval", "template"): (
        CODE, "", WITH_INPUT.format("Complete the Python function.", 'def f():\n    """One."""'), None,
    ),
    ("humaneval", "raw"): (CODE, "", CODE["prompt"], None),
    ("mmlu", "template"): (QUIZ | {"subject": "night_sky"}, "", WITH_INPUT.format("Which?", OPTIONS), "B"),
    ("mmlu", "raw"): (
        QUIZ | {"subject": "night_sky"},
        "The following are multiple choice questions (with answers) about night sky.\n\n",
        f"Which?\n{OPTIONS}\nAnswer:", " B",
    ),
    ("commonsenseqa", "template"): (QUIZ, "", WITH_INPUT.format("Which?", OPTIONS), "B"),
    ("commonsenseqa", "raw"): (QUIZ, "", f"Question: Which?\n{OPTIONS}\nAnswer:", " B"),
    ("heldout", "template"): (SUMS, "", ALONE.format("How many?"), None),
    ("hexphi", "template"): (ASK, "", ALONE.format("Do it."), None),
    ("hexphi_benign", "template"): (ASK, "", ALONE.format("Do it."), None),
    ("safety_prompts", "template"): (ASK, "", ALONE.format("Do it."), None),
    ("harmless_prompts", "template"): (ASK, "", ALONE.format("Do it."), None),
}  # fmt: skip


def test_every_layout_of_every_benchmark_is_pinned_here():
    assert {(name, layout) for name in names() for layout in load_task(name).layouts} == WORDS.keys()


@pytest.mark.parametrize(("benchmark", "layout"), WORDS)
def test_a_benchmark_asks_in_these_words_and_shows_worked_examples_in_the_same(benchmark, layout):
    row, header, question, solution = WORDS[benchmark, layout]
    assert prompt_texts(protocol(benchmark, layout=layout), [row]) == [header + question]
    if solution is not None:
        shown = [row | {"id": "1"}, row | {"id": "2"}]
        (text,) = prompt_texts(protocol(benchmark, layout=layout, num_fewshot=2), [row], shown)
        assert text == header + 2 * f"{question}{solution}\n\n" + question


def official(name: str, folder: str, documents: dict, **changes) -> list[str]:
    """The contexts that lm-eval's own task builds from documents in the hub's fields."""
    home = Path(lm_eval.__file__).parent / "tasks" / folder
    config = yaml.safe_load((home / name).read_text())
    if include := config.pop("include", None):
        config = yaml.safe_load((home / include).read_text()) | config
    for ours in ("tag", "dataset_name", "dataset_path", "metadata"):
        config.pop(ours, None)
    config |= {"custom_dataset": lambda **_: documents} | changes
    (task,) = TaskManager(include_defaults=False).load([config])["tasks"].values()
    task.build_all_requests(limit=None, rank=0, world_size=1)
    return [(instance.args[0], instance.args[1]) for instance in task.instances]


@pytest.mark.parametrize("shots", [0, 5])
def test_raw_questions_are_asked_in_the_very_words_of_lm_evals_tasks(shots):
    from datasets import Dataset

    def documents(rows, pool, shown, convert):
        return {
            split: Dataset.from_list([convert(row) for row in some])
            for split, some in zip(shown, (rows, pool), strict=True)
        }

    rows = [quiz(n, "B", subject="abstract_algebra") for n in range(2)]
    pool = [quiz(n, "ABCD"[n % 4], split="dev", subject="abstract_algebra") for n in range(6)]
    given = documents(rows, pool, ("test", "dev"), lambda row: row | {"answer": LETTERS.index(row["answer"])})
    asked = prompt_texts(protocol(layout="raw", num_fewshot=shots), rows, pool)
    theirs = official("mmlu_abstract_algebra.yaml", "mmlu/default", given, num_fewshot=shots)
    assert [(text, " " + letter) for text in asked for letter in "ABCD"] == theirs

    rows = [quiz(n, "E", subject=None) for n in range(2)]
    pool = [quiz(n, "ABCDE"[n % 5], split="train", subject=None) for n in range(6)]
    given = documents(rows, pool, ("validation", "train"), lambda row: {
        "question": row["question"], "answerKey": row["answer"],
        "choices": {"label": list(LETTERS), "text": row["choices"]},
    })  # fmt: skip
    asked = prompt_texts(protocol("commonsenseqa", layout="raw", num_fewshot=shots), rows, pool)
    first = {"sampler": "first_n"}
    theirs = official("default.yaml", "commonsense_qa", given, num_fewshot=shots, fewshot_config=first)
    assert [(text, " " + letter) for text in asked for letter in LETTERS] == theirs


# Worked examples


def test_examples_are_the_first_of_the_questions_own_subject_and_never_the_question_itself():
    rows = [quiz(0, subject="tides"), quiz(1, subject="winds")]
    pool = [quiz(n, subject=subject, split="dev") for n in (3, 4, 5) for subject in ("winds", "tides")]
    for text, row in zip(prompt_texts(protocol(num_fewshot=2), rows, [*rows, *pool]), rows, strict=True):
        shown = [quiz(n, subject=row["subject"], split="dev") for n in (3, 4)]
        questions = prompt_texts(protocol(), [*shown, row])
        assert text == "".join(question + "A\n\n" for question in questions[:2]) + questions[2]
    with pytest.raises(ValueError, match=r"num_fewshot=4 needs as many worked examples and got 3 for test/tides/0"):
        prompt_texts(protocol(num_fewshot=4), rows, pool)


@pytest.mark.parametrize("scoring", ["likelihood", "generated"])
def test_examples_that_do_not_fit_are_dropped_and_the_record_says_how_many_are_left(scoring, tmp_path):
    tokenizer, pool = bpe(), [quiz(n, split="dev") for n in range(3, 8)]
    new = {"max_new_tokens": 8} if scoring == "generated" else {}

    def length(count: int, row: dict) -> int:
        (text,) = prompt_texts(protocol(num_fewshot=count), [row], pool)
        return len(tokenizer(text)["input_ids"])

    room = length(5, quiz(0))
    longer = [quiz(1) | {"question": "Think." * times + " Which is 1?"} for times in range(400)]
    rows = [quiz(0)] + [
        next(row | {"id": f"test/{count}"} for row in longer if length(count, row) <= room < length(count + 1, row))
        for count in (3, 0)
    ]
    reserve = 8 if scoring == "generated" else 4
    model = small_model(vocab_size=len(tokenizer), max_position_embeddings=room + reserve)
    settings = protocol(scoring=scoring, num_fewshot=5, **new)
    records = evaluate(model, settings, rows, tmp_path, tokenizer=tokenizer, shown=pool)
    assert [record["shots"] for record in records] == [5, 3, 0]


def test_a_question_that_does_not_fit_by_itself_rows_that_are_none_or_share_an_id_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"context of 60"):
        evaluate(small_model(max_position_embeddings=60), protocol(), [quiz(0)], tmp_path)
    with pytest.raises(ValueError, match="mmlu has no rows"):
        prompt_texts(protocol(), [])
    with pytest.raises(ValueError, match="two rows of mmlu have the same id"):
        prompt_texts(protocol(), [quiz(0), quiz(0)])
    assert len(prompt_texts(protocol(limit=1), [quiz(0), quiz(1)])) == 1


def test_a_prompt_is_tokenized_to_see_whether_it_fits_only_where_its_length_leaves_a_doubt():
    asked = [Prompt({"id": n}, text) for n, text in enumerate(["x" * 40, "x" * 90, "é" * 40, "é" * 60])]
    model, read = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=100)), []

    class Counting:
        bos_token_id = None

        def __call__(self, texts):
            read.extend(texts)
            return {"input_ids": [list(text.encode()) for text in texts]}

    assert batching.fits(model, Counting(), asked, new_tokens=10) == [True, True, True, False]
    assert read == [prompt.text for prompt in asked[1:]]
