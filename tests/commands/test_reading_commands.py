"""Commands that need no model run without importing torch, so that they start fast."""

import subprocess
import sys
import textwrap

PROGRAM = """
    import runpy, sys
    from importlib.abc import MetaPathFinder
    from pathlib import Path
    from hydra.core.global_hydra import GlobalHydra

    FORBIDDEN = {"torch", "transformers", "peft", "datasets", "lm_eval", "accelerate", "deepspeed"}

    imported = []

    class Watched(MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in FORBIDDEN:
                imported.append((*sys.argv[:1], name))
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Watched())
    exists = Path.exists  # as on a machine with a GPU, which only torch can count
    Path.exists = lambda self, **options: str(self) == "/dev/nvidiactl" or exists(self, **options)
    scripts, results = sys.argv[1:]
    cells = ["table=table3", "seeds=0", f"results_dir={results}"]
    for script, *arguments in (
        ("list", *cells),
        ("report", *cells, "allow_missing=true"),
        ("stats", *cells, "allow_missing=true"),
        ("hyperparameters", "table=table4", f"results_dir={results}"),
        ("figures", "figure=figure1", f"results_dir={results}"),
        ("page", f"results_dir={results}", f"output={results}/report.html"),
        ("audit", "--results", results),
        *((name, "--help") for name in ("counts", "train", "evaluation_speed", "truncation", "pretrain_tinyworld")),
    ):
        sys.argv = [f"{scripts}/{script}.py", *arguments]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            assert not end.code, (script, end.code)
        GlobalHydra.instance().clear()
        print("without torch:", script)
    import reproduction.preflight, reproduction.report.counts, reproduction.running.table  # what fills tables
    assert not imported, imported
"""


def test_no_command_that_only_reads_imports_torch(repository, tmp_path):
    for name in ("counts", "theory", "h200", "cpu", "reference"):
        if (repository / "results" / name).is_dir():
            (tmp_path / name).symlink_to(repository / "results" / name)
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), repository / "scripts", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("without torch:") == 12
    assert (tmp_path / "report.html").is_file()
