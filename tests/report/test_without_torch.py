"""Every table is rendered in a process where none of the training packages can be imported."""

import subprocess
import sys
import textwrap

from reproduction.report import load_grid

PROGRAM = """
    import sys
    from importlib.abc import MetaPathFinder
    from pathlib import Path

    FORBIDDEN = {"torch", "transformers", "peft", "hydra", "omegaconf", "datasets", "lm_eval", "accelerate"}

    class Nowhere(MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in FORBIDDEN:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Nowhere())
    try:
        import torch
    except ModuleNotFoundError:
        pass
    else:
        raise SystemExit("torch could be imported: this test proves nothing")

    from rich.console import Console
    from reproduction import report

    runs, experiments, results = map(Path, sys.argv[1:])
    grids = map(report.load_grid, sorted(path.parent for path in experiments.glob("*/grid.yaml")))
    grids = [grid.at("tiny") for grid in grids if grid.is_at("tiny")]
    report.collect_metrics(runs, results / "metrics.csv", scale="tiny")
    for grid in grids:
        filled = report.gather(grid, runs, scale="tiny")
        comparisons = report.write_significance(filled, results / "significance" / f"{grid.table}.csv")
        table = report.lay_out(filled)
        report.write_table(table, results / "tables")
        Console().print(report.console(table))
        print(report.summary(filled, comparisons))
        assert not table.missing, table.missing
    assert not FORBIDDEN & set(sys.modules)
    print("rendered", *(grid.table for grid in grids))
"""


def test_every_table_is_rendered_where_torch_cannot_be_imported(world, repository, tmp_path):
    for grid in (load_grid(path.parent) for path in repository.glob("experiments/*/grid.yaml")):
        if grid.is_at("tiny"):
            runs = world(grid=grid.at("tiny")).fill().root
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), runs, repository / "experiments", tmp_path]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("rendered table1")
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert written >= {"metrics.csv", "significance/table1.csv", "tables/table1.md", "tables/table1.tex"}
