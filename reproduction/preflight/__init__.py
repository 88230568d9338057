"""Checks, before any download or computation, that this machine can run the cells; one list of all that is missing.

    fits      whether each method fits its base, and each cell the memory
    machine   GPUs, their driver, PyTorch's build
    software  versions of the packages, DeepSpeed and its compiler
    disk      downloads, saved models and checkpoints, by file system
    hub       access to gated repositories and to data sets on the web

A check that fails unexpectedly adds a line with its name to the list.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from reproduction.cells.cell import Cell, unfinished
from reproduction.cells.evaluation import EvalJob
from reproduction.cells.sizes import Kind, kinds_of
from reproduction.evals.sandbox import ExecutionRefused, Job, Permissions, run_jobs
from reproduction.evals.task import Protocol
from reproduction.preflight.disk import in_bytes, needs
from reproduction.preflight.disk import lacking as disk_lacks
from reproduction.preflight.fits import estimate_lines, memory_lacks, misfits, slow_on_cpu
from reproduction.preflight.hub import Sources
from reproduction.preflight.machine import gpu_lacks, this_machine, unusable
from reproduction.preflight.software import software_lacks
from reproduction.running.memory import Gpu, fitted, fitted_to_the_papers, gpus, room_on
from reproduction.training.launching import rank


class NotReady(Exception):
    """This machine cannot run the request; the message lists everything that is missing."""


def require(cells: Iterable[Cell], *, scale: str, results_dir: Path) -> None:
    """Raise `NotReady` with everything that the unfinished cells need and this machine lacks; takes seconds."""
    waiting = unfinished(cells)
    if lacks := missing(waiting, results_dir=results_dir):
        raise NotReady(f"{len(waiting)} cells at scale={scale} cannot run here; missing:{listed(lacks)}")


def require_training(cell: Cell) -> None:
    """Apply `require` to the cell's training. In a launch the first rank raises and the others exit."""
    try:
        require([replace(cell, protocols=())], scale=cell.scale, results_dir=cell.results_dir)
    except NotReady:
        if rank() > 0:
            raise SystemExit(2) from None
        raise


def require_evaluation(job: EvalJob) -> None:
    """Raise `NotReady` with what the job's unfinished evaluations need, apart from the model, and lack here."""
    waiting = job.waiting
    if not waiting:
        return
    sources = Sources()
    for protocol in waiting:
        sources.add_data(protocol.task.data, job.data_root, job.revisions)
    sources.ask()
    lacks = [
        *checked("the sandbox", lambda: _sandbox(waiting, job.permissions)),
        *checked("GPUs", lambda: unusable(this_machine()) if gpus() or job.dtype != "float32" else ()),
        *checked("the hub", sources.lacks),
    ]
    if lacks:
        raise NotReady(f"{len(waiting)} evaluations of {job.folder} cannot run here; missing:{listed(lacks)}")


def missing(cells: Sequence[Cell], *, results_dir: Path) -> list[str]:
    """Return one sentence for each need of the cells that this machine lacks. Takes < 20 s on any network."""
    if not cells:
        return []
    sources, kinds, protocols = Sources(), list[Kind](), list[Protocol]()

    def ask_hub() -> Iterable[str]:
        for cell in cells:
            sources.add_cell(cell)
        sources.ask()
        return ()

    def measure_cells() -> Iterable[str]:
        kinds.extend(kinds_of(cells))
        protocols.extend(protocol for cell in cells for protocol in cell.eval_job.waiting)
        return misfits(kinds)

    checks: dict[str, Callable[[], Iterable[str]]] = {
        "the hub": ask_hub,
        "a fit": measure_cells,
        "the sandbox": lambda: _sandbox(protocols, cells[0].permissions),
        "GPUs": lambda: gpu_lacks(this_machine(), kinds),
        "memory": lambda: memory_lacks(gpus(), kinds),
        "disk": lambda: disk_lacks(needs(kinds, results_dir=results_dir)),
        "packages": lambda: software_lacks(cells),
        "the hub's answers": sources.lacks,
    }
    return [line for name, check in checks.items() for line in checked(name, check)]


def estimates(cells: Sequence[Cell], elsewhere: Sequence[Gpu] = ()) -> list[str]:
    """Return lines on the cells' GPU memory, in micro-batches that fit.

    They are for the GPUs ``elsewhere``, if any are given, else for this machine's; without a GPU for the paper's.
    """

    def fit(cell: Cell) -> Cell:
        return fitted(cell, room_on(elsewhere, cell)) if elsewhere else fitted_to_the_papers(cell)

    return checked("memory", lambda: estimate_lines([fit(cell) for cell in cells]))


def missing_elsewhere(cells: Sequence[Cell], elsewhere: Sequence[Gpu]) -> list[str]:
    """Return one sentence for each reason why GPUs that are not here would not do for the cells."""
    kinds = kinds_of(cells)
    return [*checked("a fit", lambda: misfits(kinds)), *checked("memory", lambda: memory_lacks(elsewhere, kinds))]


def not_checked(cells: Sequence[Cell], *, results_dir: Path) -> list[str]:
    """Return lines on what the cells need and only a check on the machine itself can see."""

    def lines() -> Iterable[str]:
        downloads, others = [], 0.0
        for need in needs(kinds_of(cells), results_dir=results_dir):
            downloads += [f"{need.what} ({in_bytes(need.size)})"] * need.download
            others += need.size * (not need.download)
        yield "not checked, which `make check` does on that machine itself:"
        yield "  its driver, PyTorch's build for it, and the versions of packages"
        if downloads:
            yield f"  access to {', '.join(downloads)}, and room for them"
        yield f"  {in_bytes(others)} of disk for models, checkpoints and records"
        running = sorted({p.benchmark for cell in cells for p in cell.eval_job.waiting if p.task.runs_code})
        if running:
            yield f"  the sandbox of {', '.join(running)}, which needs allow_code_execution=true"

    return checked("the rest", lines)


def slowness(cells: Sequence[Cell]) -> list[str]:
    """Return a line if cells of real models will train on the CPU, which is allowed; none for small models."""
    return checked("GPUs", lambda: slow_on_cpu(gpus(), kinds_of(cells)))


def checked(name: str, check: Callable[[], Iterable[str]]) -> list[str]:
    """Return the check's lines, plus one for an unexpected error."""
    lines: list[str] = []
    try:
        lines.extend(check())
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        lines.append(f"{name}: this could not be checked ({type(error).__name__}: {reason})")
    return lines


def _sandbox(protocols: Iterable[Protocol], permissions: Permissions) -> Iterable[str]:
    """Test the sandbox with a harmless program if a benchmark runs model-written programs."""
    running = sorted({protocol.benchmark for protocol in protocols if protocol.task.runs_code})
    if not running:
        return
    harmless = Job(prompt="", test="def check(f):\n    f()\n", entry_point="f", program="def f():\n    pass\n")
    try:
        run_jobs([harmless], permissions=permissions, workers=1)
    except ExecutionRefused as error:
        yield f"{', '.join(running)}: {error}"


def listed(lacks: Sequence[str]) -> str:
    """Return the sentences as numbered lines, each after a line break."""
    return "".join(f"\n  {number}. {lack}" for number, lack in enumerate(lacks, start=1))
