"""Preflight lists all that a machine lacks within seconds, also if the network, the driver or a check fails."""

import dataclasses
import importlib.metadata
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_gpus import gpu
from packaging.requirements import Requirement

from reproduction.cells.cell import Cell
from reproduction.cells.config_schema import ConfigError
from reproduction.cells.sizes import kinds_of, sort_of
from reproduction.preflight import (
    NotReady,
    estimates,
    missing,
    missing_elsewhere,
    needs,
    not_checked,
    require,
    require_evaluation,
    require_training,
)
from reproduction.preflight.disk import Need, lacking
from reproduction.preflight.fits import estimate_lines, memory_lacks
from reproduction.preflight.machine import Machine, gpu_lacks, such_gpus, unusable
from reproduction.preflight.software import package_lacks, software_lacks
from reproduction.running.memory import fitted_to_the_papers
from reproduction.training.launching import Launch
from reproduction.training.spec import DataSpec

pytestmark = pytest.mark.build


def test_two_gpus_of_80_gb_hold_every_kind_and_smaller_ones_what_fits_them(paper: dict[str, Cell]) -> None:
    kinds = kinds_of(paper.values())
    assert list(memory_lacks([gpu(85), gpu(85)], kinds)) == []
    (full,) = memory_lacks([gpu(48), gpu(85)], kinds)  # the smaller one decides
    assert "LLaMA-3-8B with FFT takes" in full
    assert "48.0 GB" in full
    few = list(memory_lacks([gpu(16)], kinds))
    assert "FFT" in few[0]  # the largest first
    assert any("LoRA" in line and "launch=zero3" in line for line in few[1:])
    assert any("evaluating LLaMA-3-8B" in line for line in few)
    assert all(
        "checkpoints" in line and "with train.micro_batch_size=1 and" in line for line in few if ": training" in line
    )
    assert not any("training LLaMA-3-8B with LoRA" in line for line in memory_lacks([gpu(22)], kinds))
    wide = dataclasses.replace(paper["lora"], batch_size=4096)
    assert any("eval_batch_size (now 4096)" in line for line in memory_lacks([gpu(85)], kinds_of([wide])))
    capped = dataclasses.replace(paper["lora"], launch=dataclasses.replace(paper["lora"].launch, memory_gb=10.0))
    assert "has 10.0 GB" in next(iter(memory_lacks([gpu(85)], kinds_of([capped]))))
    plain = dataclasses.replace(paper["fft"].train, deepspeed=None)
    (line,) = memory_lacks([gpu(500)], kinds_of([dataclasses.replace(paper["fft"], launch=Launch(), train=plain)]))
    assert "give launch=zero3" in line


def test_16_bit_weights_need_a_gpu_that_can_compute_in_them(paper: dict[str, Cell], tiny: Cell) -> None:
    (line,) = gpu_lacks(Machine(), kinds_of(paper.values()))
    assert "3 cells have weights in bfloat16" in line
    old = gpu(32, name="V100", capability=(7, 0))
    for archs, expected in ((("sm_70", "sm_80"), ["bfloat16"]), (("sm_80",), ["PyTorch", "bfloat16"])):
        machine = Machine(gpus=(old,), built="12.6", driver=(12, 6), driven=True, archs=archs)
        assert [line.split(":")[0] for line in gpu_lacks(machine, kinds_of([paper["lora"]]))] == expected
        assert [line.split(":")[0] for line in gpu_lacks(machine, kinds_of([tiny]))] == expected[:-1]
    new = Machine(gpus=(gpu(32),), archs=("sm_80",))
    assert list(gpu_lacks(new, kinds_of([paper["lora"]]))) == []


def test_a_driver_that_pytorch_cannot_use_matters_where_a_gpu_is_needed(
    paper: dict[str, Cell], tiny: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(built=None, driver=(12, 4), driven=True)
    assert list(gpu_lacks(machine, kinds_of([tiny]))) == []
    assert len(list(gpu_lacks(machine, kinds_of([paper["lora"]])))) == 2
    monkeypatch.setattr("reproduction.preflight.this_machine", lambda: machine)
    require_evaluation(tiny.eval_job)
    with pytest.raises(NotReady, match="a build for CPUs"):
        require_evaluation(paper["lora"].eval_job)


@pytest.mark.parametrize(
    ("built", "driver", "wheel"),
    [(None, (12, 4), "cu124"), (None, (10, 0), "cu118"), ("12.8", (11, 8), "cu118"), ("12.8", (13, 0), None),
     ("12.8", (12, 8), None), ("12.8", None, None)],
)  # fmt: skip
def test_a_driver_that_pytorch_cannot_use_is_told_with_the_build_to_install(built, driver, wheel) -> None:
    (line,) = unusable(Machine(built=built, driver=driver, driven=True))
    assert (f"whl/{wheel}`" in line) if wheel else ("nvidia-smi" in line)
    assert list(unusable(Machine(built=built, driver=driver, driven=False))) == []


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [((8, 0), ("sm_80",), True), ((8, 9), ("sm_80",), True), ((9, 0), ("sm_80",), False),
     ((12, 0), ("sm_80", "compute_90"), True), ((3, 7), ("sm_80", "compute_90"), False),
     ((8, 6), ("sm_90a", "sm_87"), False), ((9, 0), ("sm_90a",), True), ((9, 0), (), True)],
)  # fmt: skip
def test_a_build_without_code_for_the_gpu_is_told_once(capability, archs, runs: bool) -> None:
    found = gpu(1, name="K80", capability=capability)
    lines = list(unusable(Machine(gpus=(found, found), built="12.8", archs=archs, driver=(12, 8), driven=True)))
    assert len(lines) == (not runs)
    assert all("K80" in line and archs[0] in line for line in lines)


def test_disk_is_counted_by_file_system_with_what_goes_where(
    paper: dict[str, Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, models, results = tmp_path / "datasets", tmp_path / "hub", paper["lora"].results_dir
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", sets)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(models))
    lora = paper["lora"]
    safety = dataclasses.replace(lora.protocols[0], benchmark="hexphi", judge="prefix")
    more = {"protocols": (*lora.protocols, safety), "revisions": {"codealpaca": "a" * 40}}
    cells = [*paper.values(), dataclasses.replace(lora, **more)]
    found = {need.what: need for need in needs(kinds_of(cells), results_dir=results)}
    model = found["the model meta-llama/Meta-Llama-3-8B"]
    assert (model.size, model.download) == (2 * 8_030_261_248, True)
    assert found["trained models and records"].size == pytest.approx(2 * 8_030_261_248 + 4 * 83_886_080, rel=0.01)
    assert found["checkpoints of one cell, 3 at a time"].size == 3 * 14 * 8_030_261_248
    assert found["the data set codealpaca"].place == sets
    assert found["the data set hexphi"].place == models
    kept = sets / "sahil2801___code_alpaca-20k" / "default" / "0.0.0" / ("a" * 40)
    kept.mkdir(parents=True)
    (kept / "code_alpaca-20k-train.arrow").touch()
    assert "the data set codealpaca" not in {need.what for need in needs(kinds_of(cells[3:]), results_dir=results)}
    little, much = (Need(what=what, place=results / "new", size=size) for what, size in (("a", 1), ("b", 10**15)))
    assert list(lacking([little])) == []
    (line,) = lacking([little, much])
    assert "1000000.0 GB" in line
    assert str(results) in line
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3_456_789))
    (line,) = lacking([Need(what="records", place=results, size=20_000_000)])
    assert "3 MB are free" in line
    assert "records 20 MB" in line


def test_packages_are_held_against_the_projects_own_ranges(
    paper: dict[str, Cell], tiny: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(software_lacks([tiny])) == []
    (old,) = package_lacks(Requirement("torch>=99"))
    assert "pip install 'torch>=99'" in old
    lean = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, liger_kernel=True))
    flash = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, attention="flash_attention_2"))
    asking = tiny.method.arguments | {"kmeans_backend": "k_means_constrained"}
    library = dataclasses.replace(tiny, method=dataclasses.replace(tiny.method, arguments=asking))
    real = importlib.metadata.version
    optional = ("liger-kernel", "flash-attn", "k-means-constrained")
    monkeypatch.setattr(
        "reproduction.preflight.software.version", lambda name: real("no-such" if name in optional else name)
    )
    assert list(software_lacks([tiny])) == []
    for cell, name in zip((lean, flash, library), optional, strict=True):
        (line,) = software_lacks([cell])
        assert f"{name} is not installed" in line
    if sys.platform == "linux":
        assert not [line for line in software_lacks([paper["fft"]]) if "DeepSpeed, which" in line]


def test_an_unexpected_error_of_a_check_is_a_line_that_names_it(tiny: Cell, paper, results: Path, monkeypatch) -> None:
    broken = dataclasses.replace(tiny, data=DataSpec(name="nonsense", max_length=8))
    assert any(line.startswith("the hub: this could not") for line in missing([broken], results_dir=results))
    with pytest.raises(NotReady, match=r"1 cells at scale=tiny cannot run here; missing:\n  1\."):
        require([broken], scale="tiny", results_dir=results)
    (line,) = estimates([dataclasses.replace(tiny, method=None)])
    assert line.startswith("memory: this could not be checked (AttributeError")
    monkeypatch.setattr("reproduction.running.memory.gpus", lambda: (gpu(85),))
    odd = dataclasses.replace(paper["lora"], launch=Launch(mode="ddp", processes=3))
    assert any("FFT" in line for line in estimates([odd, paper["fft"]]))
    lines = missing([odd], results_dir=results)
    assert any("a batch: multitask_llama3/lora" in line and "3 processes" in line for line in lines)


def test_estimates_name_the_largest_of_each_sort_first(paper: dict[str, Cell], tiny: Cell) -> None:
    heading, *lines = estimate_lines([*map(fitted_to_the_papers, paper.values()), tiny])
    assert "estimated" in heading
    assert lines[0].startswith("  LLaMA-3-8B with FFT (2 × 8 rows of 512, zero3)")  # of 80 GB
    assert len(lines) == 4
    assert sort_of(paper["lora"]) == "llama3_8b/peft/LORA"


def test_the_kernel_of_attention_need_not_be_installed_for_an_estimate(paper: dict[str, Cell]) -> None:
    flash, eager = (
        dataclasses.replace(paper["lora"], model=dataclasses.replace(paper["lora"].model, attention=attention))
        for attention in ("flash_attention_2", "eager")
    )
    plain, fast, slow = (kinds_of([cell])[0] for cell in (paper["lora"], flash, eager))
    assert fast.body == plain.body is not None
    assert fast.training() == plain.training()
    assert slow.shape.attention == "eager"  # its estimate includes the attention matrices


def test_a_model_folder_is_looked_through_and_has_the_sizes_of_its_own_config(tiny, tmp_path, results) -> None:
    model = dataclasses.replace(tiny.model, path_or_id=str(tmp_path), checksum=None)
    own = dataclasses.replace(tiny, model=model)

    def lacks() -> list[str]:
        return [line for line in missing([own], results_dir=results) if "model folder" in line]

    (tmp_path / "config.json").write_text((Path(tiny.model.path_or_id) / "config.json").read_text())
    assert kinds_of([own])[0].body == kinds_of([tiny])[0].body is not None
    assert "no tokenizer" in lacks()[0]
    (tmp_path / "tokenizer.json").touch()
    assert "no .safetensors" in lacks()[0]
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "one.safetensors").touch()
    assert "lacks 1 of its 2 files of weights, such as two.safetensors" in lacks()[0]
    (tmp_path / "two.safetensors").touch()
    assert lacks() == []


def test_of_the_ranks_of_a_launch_the_first_says_what_is_missing_and_the_others_exit(paper, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(NotReady, match="1 cells at scale=paper cannot run here"):
        require_training(paper["lora"])
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as end:
        require_training(paper["lora"])
    assert end.value.code == 2


def test_a_machine_that_is_not_here_is_judged_by_its_gpus_alone(paper: dict[str, Cell], results: Path) -> None:
    cells, two = list(paper.values()), such_gpus(2, 80)
    assert missing_elsewhere(cells, two) == []
    assert "  LLaMA-3-8B with FFT (2 × 8 rows of 512, zero3)" in estimates(cells, two)[1]
    small = such_gpus(2, 24)
    full, *others = missing_elsewhere(cells, small)
    assert "FFT takes" in full
    assert "such a GPU has 24.0 GB" in full
    assert not any("LoRA" in line for line in others)
    rest = "\n".join(not_checked(cells, results_dir=results))
    for words in ("the model meta-llama/Meta-Llama-3-8B (16.1 GB)", "GB of disk", "the sandbox of humaneval"):
        assert words in rest


@pytest.mark.parametrize(
    "asked", [(0, 80), (1.5, 80), ("two", 80), (True, 80), (2, "big"), (2, 0), (2, float("inf")), (2, float("nan"))]
)
def test_gpus_that_are_no_number_are_refused(asked) -> None:
    with pytest.raises(ConfigError, match=str(asked[1] if asked[0] == 2 else asked[0])):
        such_gpus(*asked)


def test_the_command_answers_for_a_machine_that_is_not_here(script, results, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    monkeypatch.setattr("reproduction.preflight.Sources.ask", lambda _: pytest.fail("asked the network"))
    asked = ["table=table3", f"results_dir={results}", "scale=paper", "methods=[base,idlora]"]
    done = script("check", *asked, "gpus=1", "memory_gb=24")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("1 GPU of 24 GB would do for 2 cells")
    assert "1 × 4 rows of 512, single" in done.stdout
    done = script("check", *asked, "gpus=2", "memory_gb=8")
    assert done.returncode == 1
    assert "2 GPUs of 8 GB would not do for all of 2 cells:\n  1. memory: " in done.stderr
    assert "memory: training LLaMA-3.2-3B" in done.stderr
    assert script("check", "gpus=two").returncode == 2


def test_the_command_lists_what_is_missing(script, results) -> None:
    shared = ["table=table3", f"results_dir={results}"]
    done = script("check", *shared, "scale=tiny", "methods=[lora]", "allow_code_execution=true")
    assert done.returncode == 0
    assert "nothing is missing: 1 cells can run, 0 are finished" in done.stdout.splitlines()
    done = script("check", *shared, "scale=paper", "methods=[base,idlora]")
    assert done.returncode == 1
    assert "memory of a GPU at the peak, estimated:" in done.stdout.splitlines()
    assert "2 of 2 cells are not finished; missing for them here:\n  1. " in done.stderr
    assert "allow_code_execution=true" in done.stderr
