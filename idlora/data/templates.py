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

BENCHMARK_TEMPLATES = {
    "gsm8k": ("alpaca",),
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
        template: "alpaca" renders the task as an instruction; "raw", for humaneval only, is the problem's own
            prompt (a signature and its docstring), which the model continues.

    Raises:
        ValueError: an unknown benchmark, or a template that it does not have.
    """
    if benchmark not in BENCHMARK_TEMPLATES:
        raise ValueError(f"No prompt for benchmark {benchmark!r}: choose one of {', '.join(BENCHMARK_TEMPLATES)}.")
    if template not in BENCHMARK_TEMPLATES[benchmark]:
        known = ", ".join(BENCHMARK_TEMPLATES[benchmark])
        raise ValueError(f"Benchmark {benchmark!r} has no template {template!r}: choose one of {known}.")
    if benchmark == "gsm8k":
        return render(row["question"])
    if benchmark == "humaneval":
        return row["prompt"] if template == "raw" else render(HUMANEVAL_INSTRUCTION, row["prompt"])
    return render(row["prompt"])
