"""Every prompt string of the project.

One template, pinned by `TEMPLATE_VERSION`, in the layout that Stanford's Alpaca made common: a line of preamble, then
the sections Instruction, Input (left out when it is empty) and Response. Training and evaluation render through the
same function, so a model is asked exactly as it was taught. The prompt ends in `"### Response:\\n"`; the answer starts
on the line after it.

Imports nothing, so that any part of the project can use it. Left out: chat templates and system prompts.
"""

TEMPLATE_VERSION = 1

RESPONSE_HEADER = "### Response:\n"

_WITHOUT_INPUT = (
    "Below is an instruction. Write a response that carries it out.\n\n"
    "### Instruction:\n{instruction}\n\n" + RESPONSE_HEADER
)
_WITH_INPUT = (
    "Below is an instruction with an input. Write a response that carries it out.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n" + RESPONSE_HEADER
)

HUMANEVAL_INSTRUCTION = "Complete the Python function."

LETTERS = "ABCDE"
"""What the choices of a question are called, in order."""

EXAMPLE_END = "\n\n"
"""Between a worked example and what follows it."""

BENCHMARK_TEMPLATES = {
    "gsm8k": ("alpaca",),
    "mmlu": ("raw", "alpaca"),
    "commonsenseqa": ("raw", "alpaca"),
    "humaneval": ("raw", "alpaca"),
    "hexphi": ("alpaca",),
    "hexphi_benign": ("alpaca",),
}


def render(instruction: str, input: str = "") -> str:
    """Prompt for an instruction, with or without an input.

    Surrounding white space of both fields is dropped; an input of white space only counts as none.

    Raises:
        ValueError: the instruction is empty.
    """
    instruction, input = instruction.strip(), input.strip()
    if not instruction:
        raise ValueError("render() got an empty instruction: give it the text of the task.")
    # str.replace and not str.format: a task about code holds braces of its own.
    if not input:
        return _WITHOUT_INPUT.replace("{instruction}", instruction)
    head, tail = _WITH_INPUT.split("{input}")
    return head.replace("{instruction}", instruction) + input + tail


def eval_prompt(benchmark: str, row: dict, template: str = "alpaca") -> str:
    """Prompt under which a benchmark's row is put to a model.

    Args:
        benchmark: a key of `BENCHMARK_TEMPLATES`.
        row: a row of `idlora.data.load_rows(benchmark, …)`.
        template: "alpaca" renders the task as an instruction, the choices of a question as its input; "raw" is what a
            model continues: for humaneval the problem's own prompt (a signature and its docstring), for mmlu and
            commonsenseqa lm-eval's layout of question, choices and "Answer:".

    Raises:
        ValueError: an unknown benchmark, or a template that it does not have.
    """
    _check(benchmark, template)
    if benchmark == "gsm8k":
        return render(row["question"])
    if benchmark == "humaneval":
        return row["prompt"] if template == "raw" else render(HUMANEVAL_INSTRUCTION, row["prompt"])
    if "choices" in row:
        options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=False))
        if template == "alpaca":
            return render(row["question"], options)
        lead = "" if benchmark == "mmlu" else "Question: "
        return f"{lead}{row['question'].strip()}\n{options}\nAnswer:"
    return render(row["prompt"])


def eval_header(benchmark: str, row: dict, template: str = "alpaca") -> str:
    """What stands once before a row's worked examples and prompt: mmlu's own line in its raw layout, else nothing.

    Source of the line: Hendrycks et al., Measuring Massive Multitask Language Understanding, 2021; every published
    number was measured under it.
    """
    _check(benchmark, template)
    if (benchmark, template) != ("mmlu", "raw"):
        return ""
    subject = row["subject"].replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {subject}.\n\n"


def eval_choices(benchmark: str, row: dict, template: str = "alpaca") -> list[str]:
    """The answers that a row's question can have, each as it follows the prompt: letters, after a space where the
    prompt ends in "Answer:" and without one at the start of a line.
    """
    _check(benchmark, template)
    return [" " * (template == "raw") + letter for letter in LETTERS[: len(row["choices"])]]


def eval_answer(benchmark: str, row: dict, template: str = "alpaca") -> str:
    """A row's right answer as it follows the prompt, for a worked example."""
    if "choices" in row:
        return eval_choices(benchmark, row, template)[LETTERS.index(row["answer"])]
    return row["answer"]


def _check(benchmark: str, template: str) -> None:
    if benchmark not in BENCHMARK_TEMPLATES:
        raise ValueError(f"No prompt for benchmark {benchmark!r}: choose one of {', '.join(BENCHMARK_TEMPLATES)}.")
    if template not in BENCHMARK_TEMPLATES[benchmark]:
        known = ", ".join(BENCHMARK_TEMPLATES[benchmark])
        raise ValueError(f"Benchmark {benchmark!r} has no template {template!r}: choose one of {known}.")
