"""What a machine lacks is told all at once, in seconds, whatever the network, the driver or a check itself does."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_gpus import gpu
from packaging.requirements import Requirement

from reproduction.cells.cell import Cell
from reproduction.cells.compose import compose
from reproduction.cells.from_config import eval_job_from_config
from reproduction.cells.resolve_paths import datasets
from reproduction.cells.sizes import kinds_of, sort_of
from reproduction.data.catalogue import DatasetSpec
from reproduction.evals.task import load_task
from reproduction.preflight import NotReady, estimates, missing, needs, require, require_evaluation
from reproduction.preflight.disk import Need, lacking
from reproduction.preflight.fits import estimate_lines
from reproduction.preflight.hub import DATASET, Sources
from reproduction.preflight.machine import Machine, gpu_lacks, memory_lacks, unusable
from reproduction.preflight.software import package_lacks, software_lacks
from reproduction.running.memory import fitted_to_the_papers
from reproduction.system.hub import model_here
from reproduction.training.launching import Launch
from reproduction.training.spec import DataSpec

pytestmark = pytest.mark.build


def test_two_gpus_of_80_gb_hold_every_kind_and_smaller_ones_what_fits_them(paper: dict[str, Cell]) -> None:
    kinds = kinds_of(paper.values())
    assert list(memory_lacks([gpu(85), gpu(85)], kinds)) == []
    (full,) = memory_lacks([gpu(48), gpu(85)], kinds)  # the smaller one decides
    assert "training LLaMA-3-8B with FFT takes" in full
    assert "on each of 2, with train.micro_batch_size=1, and A GPU has 48.0 GB: a lower data.max_length or more" in full
    assert not any(
        "training LLaMA-3-8B with LoRA" in line for line in memory_lacks([gpu(22)], kinds)
    )  # in smaller passes
    few = list(memory_lacks([gpu(16)], kinds))
    assert "FFT" in few[0]  # worst first
    assert any("LoRA" in line and "launch=zero3, which shares the weights" in line for line in few[1:])
    assert any("evaluating LLaMA-3-8B" in line and line.endswith("a GPU with more memory") for line in few)
    wide = dataclasses.replace(paper["lora"], batch_size=4096)
    assert any("lower eval_batch_size (now 4096)" in line for line in memory_lacks([gpu(85)], kinds_of([wide])))
    capped = dataclasses.replace(paper["lora"], launch=dataclasses.replace(paper["lora"].launch, memory_gb=10.0))
    assert "has 10.0 GB" in next(iter(memory_lacks([gpu(85)], kinds_of([capped]))))


def test_full_fine_tuning_in_16_bits_wants_deepspeed(paper: dict[str, Cell]) -> None:
    alone = dataclasses.replace(
        paper["fft"], launch=Launch(), train=dataclasses.replace(paper["fft"].train, deepspeed=None)
    )
    (line,) = memory_lacks([gpu(500)], kinds_of([alone]))
    assert "DeepSpeed's float32 copies: give launch=zero3" in line


def test_a_batch_that_the_processes_cannot_share_is_one_more_line(paper: dict[str, Cell], results: Path) -> None:
    odd = dataclasses.replace(paper["lora"], launch=Launch(mode="ddp", processes=3))
    assert any(
        "a batch: multitask_llama3/lora" in line and "3 processes" in line
        for line in missing([odd], results_dir=results)
    )


def test_no_gpu_is_missed_where_weights_are_in_16_bits_alone(paper: dict[str, Cell], tiny: Cell) -> None:
    (line,) = gpu_lacks(Machine(), kinds_of(paper.values()))
    assert "no CUDA device is visible, and 3 cells have weights in bfloat16" in line
    assert list(gpu_lacks(Machine(), kinds_of([tiny]))) == []


def test_an_old_gpu_is_told_by_what_it_cannot_do(paper: dict[str, Cell], tiny: Cell) -> None:
    def lines(cell: Cell, **build) -> list[str]:
        old = gpu(32, name="V100", capability=(7, 0))
        machine = Machine(gpus=(old,), built="12.6", driver=(12, 6), driven=True, **build)
        return list(gpu_lacks(machine, kinds_of([cell])))

    (line,) = lines(paper["lora"], archs=("sm_70", "sm_80"))
    assert "V100 does not compute in it (capability 7.0" in line
    assert lines(tiny, archs=("sm_70", "sm_80")) == []
    no_code, no_bfloat16 = lines(paper["lora"], archs=("sm_80",))
    assert "no code for V100" in no_code
    assert no_bfloat16 == line
    assert lines(tiny, archs=("sm_80",)) == [no_code]  # PyTorch would compute on it, and fail
    assert list(gpu_lacks(Machine(gpus=(gpu(32),), archs=("sm_80",)), kinds_of([paper["lora"]]))) == []


def test_a_driver_that_pytorch_cannot_use_is_no_matter_where_no_gpu_is_needed(
    paper: dict[str, Cell], tiny: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(built=None, driver=(12, 4), driven=True)
    assert list(gpu_lacks(machine, kinds_of([tiny]))) == []
    build, _ = gpu_lacks(machine, kinds_of([paper["lora"]]))
    assert "this build is for CPUs alone" in build
    monkeypatch.setattr("reproduction.preflight.this_machine", lambda: machine)
    monkeypatch.setattr("reproduction.preflight.gpus", lambda: machine.gpus)
    require_evaluation(tiny.eval_job)
    asked = [f"output={tmp_path}", "eval=gsm8k", f"data_root={tiny.data_root}"]
    for job in (paper["lora"].eval_job, eval_job_from_config(compose("evaluate", asked))):
        with pytest.raises(NotReady, match="this build is for CPUs alone"):
            require_evaluation(job)


@pytest.mark.parametrize(
    ("built", "driver", "says"),
    [
        (None, (12, 4), "for CPUs alone, and an NVIDIA driver (CUDA 12.4) is here: install a CUDA build, for example "
         "`pip install torch --index-url https://download.pytorch.org/whl/cu124`"),
        ("12.8", (11, 8), "for CUDA 12.8, and the driver knows CUDA up to 11.8: update the driver, or install an older "
         "build, `pip install torch --index-url https://download.pytorch.org/whl/cu118`"),
        ("12.8", (13, 0), "no GPU is usable: look at `nvidia-smi`, and at CUDA_VISIBLE_DEVICES"),
        ("12.8", None, "an NVIDIA driver (CUDA an unknown version) is here and no GPU is usable"),
    ],
)  # fmt: skip
def test_a_driver_that_pytorch_cannot_use_is_told_with_the_build_to_install(built, driver, says: str) -> None:
    (line,) = unusable(Machine(built=built, driver=driver, driven=True))
    assert says in line
    assert list(unusable(Machine(built=built, driver=driver, driven=False))) == []


def test_a_build_without_code_for_the_gpu_is_told() -> None:
    def lines(capability: tuple[int, int], *archs: str) -> list[str]:
        found = gpu(1, name="K80", capability=capability)
        return list(unusable(Machine(gpus=(found, found), built="12.8", archs=archs, driver=(12, 8), driven=True)))

    archs = ("sm_80", "sm_90", "compute_90")
    for capability in ((8, 0), (8, 9), (9, 0), (12, 0)):  # its own, a later minor one, PTX for all that comes later
        assert lines(capability, *archs) == []
    (line,) = lines((3, 7), *archs)
    assert "no code for K80 (compute capability 3.7; it has sm_80, sm_90, compute_90)" in line
    assert lines((8, 6), "sm_90a", "sm_87") != []
    assert lines((9, 0)) == []


def test_disk_is_counted_by_file_system_with_what_goes_where(
    paper: dict[str, Cell], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {need.what: need for need in needs(kinds_of(paper.values()), results_dir=results)}
    model = found["the model meta-llama/Meta-Llama-3-8B"]
    assert (model.size, model.download) == (2 * 8_030_261_248, True)
    assert found["trained models and records"].size == pytest.approx(2 * 8_030_261_248 + 4 * 83_886_080, rel=0.01)
    assert found["checkpoints of one cell, 3 at a time"].size == 3 * 14 * 8_030_261_248
    places = {need.place for need in found.values()}
    assert results.resolve() in places
    assert len(places) > 1
    little, much = (Need(what=what, place=results / "new", size=size) for what, size in (("a", 1), ("b", 10**15)))
    assert list(lacking([little])) == []
    (line,) = lacking([little, much])
    assert "about 1000000.0 GB are needed (a 0 kB, b 1000000.0 GB)" in line
    assert str(results) in line
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3_456_789))
    (line,) = lacking([Need(what="records", place=results, size=20_000_000)])
    assert line.startswith(f"disk: 3 MB are free at {results}, about 20 MB are needed (records 20 MB): make room, or ")


def _version_without(absent: str) -> Callable[[str], str]:
    def version(name: str) -> str:
        return importlib.metadata.version("no-such-package" if name == absent else name)

    return version


def test_packages_are_held_against_the_projects_own_ranges(
    paper: dict[str, Cell], tiny: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(software_lacks([tiny])) == []
    (old,) = package_lacks(Requirement("torch>=99"))
    assert ">=99 is needed: pip install 'torch>=99'" in old
    (absent,) = package_lacks(Requirement("no-such-package"))
    assert "no-such-package is not installed" in absent
    lean = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, liger_kernel=True))
    assert any("liger-kernel" in line for line in software_lacks([lean]))
    asking = tiny.method.arguments | {"kmeans_backend": "k_means_constrained"}
    library = dataclasses.replace(tiny, method=dataclasses.replace(tiny.method, arguments=asking))
    with monkeypatch.context() as patch:
        patch.setattr("reproduction.preflight.software.version", _version_without("k-means-constrained"))
        assert list(software_lacks([tiny])) == []
        (line,) = software_lacks([library])
    assert "k-means-constrained is not installed" in line
    if sys.platform == "linux":
        assert not [line for line in software_lacks([paper["fft"]]) if "DeepSpeed, which" in line]


def test_what_a_check_did_not_expect_is_a_line_that_names_it(tiny: Cell, results: Path) -> None:
    broken = dataclasses.replace(tiny, data=DataSpec(name="nonsense", max_length=8))
    lines = missing([broken], results_dir=results)
    assert any(line.startswith("the hub: this could not be checked (KeyError") for line in lines)
    with pytest.raises(NotReady, match=r"1 cells at scale=tiny cannot run here; missing:\n  1\."):
        require([broken], scale="tiny", results_dir=results)


def test_estimates_name_the_largest_of_each_sort_first(paper: dict[str, Cell], tiny: Cell) -> None:
    heading, *lines = estimate_lines([*map(fitted_to_the_papers, paper.values()), tiny])
    assert "estimated" in heading
    assert lines[0].startswith("  LLaMA-3-8B with FFT (")
    assert "2 × 8 rows of 512, zero3" in lines[0]  # of 80 GB
    assert len(lines) == 4
    assert sort_of(paper["lora"]) == "llama3_8b/peft/LORA"


def test_a_data_set_in_the_cache_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(name: str, revision: str) -> bool:
        sources = Sources()
        sources.add_data(datasets()[name], None, {name: revision})
        return bool(sources.repositories)

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    commit, other = "a" * 40, "b" * 40
    assert asked("codealpaca", commit)
    kept = tmp_path / "datasets" / "sahil2801___code_alpaca-20k" / "default" / "0.0.0" / commit
    kept.mkdir(parents=True)
    assert asked("codealpaca", commit)
    (kept / "code_alpaca-20k-train.arrow").touch()
    assert not asked("codealpaca", commit)
    assert asked("codealpaca", other)
    snapshot = tmp_path / "hub" / "datasets--LLM-Tuning-Safety--HEx-PHI" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    assert asked("hexphi", commit)
    for file in load_task("hexphi").data.hub_files:
        (snapshot / file).touch()
    assert not asked("hexphi", commit)


def test_every_data_set_of_a_cell_is_looked_for_those_of_its_benchmarks_too(
    paper: dict[str, Cell], tiny: Cell, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reproduction.preflight.hub.cached", lambda spec, revision: False)
    safety = dataclasses.replace(tiny.protocols[0], benchmark="hexphi", num_fewshot=0, judge="prefix")
    cell = dataclasses.replace(paper["lora"], protocols=(*paper["lora"].protocols, safety), revisions={"mmlu": "abc"})

    def asked(cell: Cell) -> dict[str, str]:
        sources = Sources()
        sources.add_cell(cell)
        return {name: revision for (kind, name), revision in sources.repositories.items() if kind == DATASET}

    trained = {"openai/gsm8k", "sahil2801/CodeAlpaca-20k", "tatsu-lab/alpaca"}
    tested = {"cais/mmlu", "tau/commonsense_qa", "openai/openai_humaneval", "LLM-Tuning-Safety/HEx-PHI"}
    assert asked(cell).keys() == trained | tested
    assert asked(cell)["cais/mmlu"] == "abc"
    base = dataclasses.replace(cell, method=paper["base"].method)
    held_out = {"openai/gsm8k", "sahil2801/CodeAlpaca-20k"}  # whose loss is measured, and nothing is trained on
    assert asked(base).keys() == tested | held_out
    downloads = [need.what for need in needs(kinds_of([cell]), results_dir=results) if need.download]
    assert {"the data set mmlu", "the data set hexphi", "the data set alpaca"} <= set(downloads)
    bare = dataclasses.replace(tiny, data_root=results)
    lacks = [line for line in missing([dataclasses.replace(bare, protocols=(*tiny.protocols, safety))],
                                      results_dir=results) if line.startswith("data set")]  # fmt: skip
    assert [line.split(":")[0] for line in lacks] == ["data set gsm8k", "data set hexphi"]


def test_rows_that_a_benchmark_brings_are_neither_asked_for_nor_missed(tmp_path: Path) -> None:
    spec = DatasetSpec("capitals", ("country",), {"test": "test"}, bundled=lambda: [{"country": "Peru"}])
    for root in (None, tmp_path):
        sources = Sources()
        sources.add_data(spec, root, {})
        assert (sources.repositories, sources.urls, sources.local) == ({}, {}, [])
        sources.add_data(dataclasses.replace(spec, bundled=None), root, {})
        assert len(sources.local) == 1


def test_cached_data_is_no_download_and_other_data_goes_where_it_is_kept(
    paper: dict[str, Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, models = tmp_path / "datasets", tmp_path / "hub"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", sets)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(models))
    lora = paper["lora"]
    safety = dataclasses.replace(lora.protocols[0], benchmark="hexphi", judge="prefix")
    cell = dataclasses.replace(lora, protocols=(*lora.protocols, safety), revisions={"codealpaca": "a" * 40})

    def places() -> dict[str, Path]:
        return {need.what: need.place for need in needs(kinds_of([cell]), results_dir=tmp_path) if need.download}

    assert places()["the data set codealpaca"] == sets
    assert places()["the data set hexphi"] == models
    kept = sets / "sahil2801___code_alpaca-20k" / "default" / "0.0.0" / ("a" * 40)
    kept.mkdir(parents=True)
    (kept / "code_alpaca-20k-train.arrow").touch()
    assert "the data set codealpaca" not in places()


def test_a_kernel_that_is_not_installed_is_a_line_and_the_sizes_are_told(paper: dict[str, Cell], results: Path) -> None:
    flash, eager = (
        dataclasses.replace(paper["lora"], model=dataclasses.replace(paper["lora"].model, attention=attention))
        for attention in ("flash_attention_2", "eager")
    )
    plain, fast, slow = (kinds_of([cell])[0] for cell in (paper["lora"], flash, eager))
    assert fast.body == plain.body is not None
    assert fast.training() == plain.training()
    assert slow.shape.attention == "eager"  # whose estimate counts the squares of attention
    if importlib.util.find_spec("flash_attn") is None:
        assert any("flash-attn is not installed" in line for line in missing([flash], results_dir=results))


def test_a_base_that_is_nowhere_near_costs_one_deadline_whatever_is_done_to_it(
    paper: dict[str, Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reproduction.system.hub.SECONDS", 0.5)
    model = dataclasses.replace(paper["lora"].model, path_or_id="owner/unknown")
    began = time.monotonic()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        kinds = kinds_of([dataclasses.replace(cell, model=model) for cell in paper.values()])
    assert 0.5 <= time.monotonic() - began < 1.4
    assert [kind.body for kind in kinds] == [None] * 3


def test_a_base_in_a_folder_has_the_sizes_of_its_own_config(tiny: Cell, tmp_path: Path) -> None:
    folder = Path(tiny.model.path_or_id)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    own = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, path_or_id=str(tmp_path)))
    assert kinds_of([own])[0].body == kinds_of([tiny])[0].body is not None


def test_estimates_end_in_no_exception(paper: dict[str, Cell], tiny: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(tiny, method=None)
    (line,) = estimates([broken])
    assert line.startswith("memory: this could not be checked (AttributeError")
    monkeypatch.setattr("reproduction.running.memory.gpus", lambda: (gpu(85),))
    odd = dataclasses.replace(paper["lora"], launch=Launch(mode="ddp", processes=3))
    assert any("FFT" in line for line in estimates([odd, paper["fft"]]))


def test_a_model_folder_is_looked_through(tiny: Cell, tmp_path: Path, results: Path) -> None:
    def lacks(**model) -> list[str]:
        own = dataclasses.replace(tiny.model, path_or_id=str(tmp_path), checksum=None, **model)
        return [
            line
            for line in missing([dataclasses.replace(tiny, model=own)], results_dir=results)
            if "model folder" in line
        ]

    (tmp_path / "config.json").write_text((Path(tiny.model.path_or_id) / "config.json").read_text())
    assert "it has no tokenizer" in lacks()[0]
    (tmp_path / "tokenizer.json").touch()
    assert "it has no .safetensors file" in lacks()[0]
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})
    )
    (tmp_path / "one.safetensors").touch()
    assert "it lacks 1 of its 2 files of weights, such as two.safetensors" in lacks()[0]
    (tmp_path / "two.safetensors").touch()
    assert lacks() == []


def test_a_model_in_the_hubs_cache_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "a" * 40
    folder = tmp_path / "models--owner--model"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    assert not model_here("owner/model", "main")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (snapshot / name).touch()
    assert model_here("owner/model", "main")
    assert model_here("owner/model", commit)
    assert not model_here("owner/model", "b" * 40)


def test_the_command_lists_what_is_missing_and_the_tiny_scale_imports_no_deepspeed(
    repository: Path, results: Path
) -> None:
    script = (
        "import runpy, sys\n"
        "for arguments in (['scale=tiny', 'methods=[lora]', 'allow_code_execution=true'],"
        " ['scale=paper', 'methods=[base,idlora]']):\n"
        f"    sys.argv = ['check.py', 'table=table3', 'results_dir={results}', *arguments]\n"
        "    try:\n"
        f"        runpy.run_path('{repository / 'scripts' / 'check.py'}', run_name='__main__')\n"
        "        print('imported', *(name for name in ('torch', 'deepspeed', 'datasets') if name in sys.modules))\n"
        "    except SystemExit as end:\n"
        "        print('exit code', end.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    said = done.stdout.splitlines()
    assert "nothing is missing: 1 cells can run, 0 are finished" in said
    assert "imported torch" in said
    assert said[-1] == "exit code 1"
    assert "memory of a GPU at the peak, estimated:" in said
    assert "2 of 2 cells are not finished; missing for them here:\n  1. " in done.stderr
    assert "allow_code_execution=true" in done.stderr
    assert "Traceback" not in done.stderr
