"""Who clusters a weight, and how many weights come to a device: a few at a time, each with its own result."""

import itertools
import statistics
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from tuner_models import make_adapted, make_base

from idlora import IdLoraConfig, select_pivots
from idlora.tuners.idlora import clustering, model, streaming
from idlora.tuners.idlora.clustering import select_pivots_many
from idlora.tuners.idlora.kmeans import cluster_rows
from reproduction.tinyworld.bases import BASES, base_path

# Who clusters


def embedded_weights(base):
    """The 28 weights (out, in) of an embedded base that adapters sit on, by name."""
    tensors = load_file(base_path(base) / "model.safetensors")
    return {name: tensor.float() for name, tensor in tensors.items() if name.endswith("_proj.weight")}


@pytest.mark.parametrize("base", BASES)
def test_an_adapter_of_an_embedded_base_has_the_torch_solver_s_pivots_from_clusters_of_r_rows_at_least(base):
    adapted = make_adapted("idlora", base=AutoModelForCausalLM.from_pretrained(base_path(base)), r=12)
    sizes = adapted.base_model.pivot_sizes()
    weights = embedded_weights(base)
    layers = adapted.pivot_layers("default")
    assert len(layers) == len(weights) == 28
    for name, layer in layers.items():
        pivots = layer.idlora_pivots["default"]
        assert torch.equal(pivots, select_pivots(weights[f"{name}.weight"], 4, 12, backend="torch"))
        assert torch.equal(pivots, select_pivots(weights[f"{name}.weight"], 4, 12))
        assert min(sizes[name]["clusters"]) >= 12


def test_on_the_embedded_bases_the_two_backends_share_as_many_pivots_as_two_seeds_of_one():
    weights = {(base, name): weight for base in BASES for name, weight in embedded_weights(base).items()}

    def pivots(seed=0, **settings):
        found = select_pivots_many(weights.items(), 4, 12, seed=seed, **settings)
        return {name: [set(rows) for rows in selection.pivots.tolist()] for name, selection in found.items()}

    def shared(one, other):
        """Pivots in both, cluster by cluster: of the pairings of the clusters the one that shares most."""
        return max(
            sum(len(a & b) for a, b in zip(one, order, strict=True)) / 48 for order in itertools.permutations(other)
        )

    def overlap(one, other):
        return statistics.fmean(shared(one[name], other[name]) for name in weights)

    ours, library = ([pivots(seed, backend=backend) for seed in (0, 1)] for backend in clustering.BACKENDS)
    across = statistics.fmean(overlap(one, other) for one in ours for other in library)
    # 0.36 < 0.39 < 0.45, each ± 0.01; seeds of torch agree more, for it finds better optima. Taken together and not by
    # clusters the pivots tell little: the rows of smallest norm are 65 % of the library's too.
    assert overlap(*library) - 0.02 < across < overlap(*ours) + 0.02
    assert overlap(pivots(method="smallest_norm"), library[0]) < across - 0.1


def test_an_adapter_and_its_statistics_have_the_clusters_of_the_backend_in_its_config():
    adapted = {name: make_adapted("idlora", kmeans_backend=name) for name in clustering.BACKENDS}
    pivots = {name: model.pivot_layers("default") for name, model in adapted.items()}
    measured = adapted["torch"].base_model.pivot_statistics()
    changed = 0
    for name, found in measured.items():
        weight = make_base().get_submodule(name).weight
        chosen = pivots["torch"][name].idlora_pivots["default"]
        assert torch.equal(chosen, select_pivots(weight, 4, 4, backend="torch"))
        assert found.cluster_sizes == select_pivots_many([(name, weight)], 4, 4, backend="torch")[name].sizes
        assert found.overlaps["pmrc"] == 1
        changed += not torch.equal(chosen, pivots["k_means_constrained"][name].idlora_pivots["default"])
    assert changed > 5
    with pytest.raises(ValueError, match=r"kmeans_backend must be one of .*, not 'cuml'"):
        IdLoraConfig(kmeans_backend="cuml")


def test_the_module_whose_weight_is_not_finite_is_named():
    base = make_base()
    base.model.layers[1].mlp.up_proj.weight.data[3, 4] = torch.nan
    with pytest.raises(ValueError, match=r"no pivots for model\.layers\.1\.mlp\.up_proj: 1 of the weight's entries"):
        make_adapted("idlora", base=base)


def test_an_error_in_reading_a_weight_is_not_taken_for_one_in_choosing_pivots(monkeypatch):
    @contextmanager
    def unreadable(layer):
        raise ValueError("the file has ended")
        yield

    monkeypatch.setattr(model, "readable_rows", unreadable)
    with pytest.raises(ValueError, match=r"^the file has ended$"):
        make_adapted("idlora")


# Many weights


def make_weights():
    generator = torch.Generator().manual_seed(12)
    shapes = {"q": (64, 40), "k": (24, 40), "v": (24, 40), "up": (96, 40), "down": (40, 96)}
    return {
        f"{layer}.{name}": torch.randn(shape, generator=generator).to(torch.bfloat16 if layer == 1 else torch.float32)
        for layer in range(4)
        for name, shape in shapes.items()
    }


def lent(weights):
    """The weights, each overwritten as soon as the next one is asked for."""
    for name, weight in weights.items():
        weight = weight.clone()
        yield name, weight
        weight.fill_(torch.nan)


@pytest.mark.parametrize("method", ["pmrc", "random", "largest_norm"])
@pytest.mark.parametrize("backend", clustering.BACKENDS)
@pytest.mark.parametrize("room", [0, 1, 40_000, 10**9])
def test_many_weights_get_the_pivots_that_each_gets_alone(method, backend, room, monkeypatch):
    weights = make_weights()
    settings = {"method": method, "backend": backend, "seed": 1, "n_init": 2}
    alone = {name: select_pivots(weight, 3, 4, **settings) for name, weight in weights.items()}
    monkeypatch.setattr(streaming, "_limit", lambda device: room)  # above zero: the CPU as if it were an accelerator
    for source in (lent(weights), ((name, lambda weight=weight: weight) for name, weight in weights.items())):
        together = select_pivots_many(source, 3, 4, **settings)
        assert list(together) == list(weights)
        assert all(torch.equal(together[name].pivots, alone[name]) for name in weights)


def test_working_copies_stay_within_their_memory_and_are_handed_out_by_shape(monkeypatch):
    room = 40_000
    monkeypatch.setattr(streaming, "_limit", lambda device: room)
    waiting, handed, most = streaming.WorkingCopies(), [], 0
    for name, weight in lent(make_weights()):
        for batch in waiting.add(name, weight):
            handed.append(batch)
        most = max(most, waiting._bytes())
    handed.extend(waiting.rest())
    assert room / 2 < most <= room
    assert any(len(batch.names) > 2 for batch in handed)
    assert sorted(name for batch in handed for name in batch.names) == sorted(make_weights())
    for batch in handed:
        assert len({copy.shape for copy in batch.copies}) == 1
        for name, copy in zip(batch.names, batch.copies, strict=True):
            assert torch.equal(copy, make_weights()[name].float())


def test_a_weight_that_comes_in_blocks_is_read_once_and_in_blocks():
    weight = make_weights()["0.up"]
    reads = []

    class Blocks:
        shape, device = weight.shape, weight.device

        def blocks(self):
            for block in weight.split(20):
                reads.append(len(block))
                yield block.clone()

    (found,) = select_pivots_many([("up", Blocks())], 4, 5, backend="torch").values()
    assert torch.equal(found.pivots, select_pivots(weight, 4, 5, backend="torch"))
    assert reads == [20, 20, 20, 20, 16]
    for settings in ({"method": "smallest_norm"}, {"backend": "k_means_constrained"}):
        (found,) = select_pivots_many([("up", Blocks())], 4, 5, **settings).values()
        assert torch.equal(found.pivots, select_pivots(weight, 4, 5, **settings))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda weight: weight.index_fill_(0, torch.tensor([2]), torch.inf),
            "no pivots for 1.v: 40 of the weight's entries",
        ),
        (lambda weight: weight.resize_(8, 40), "no pivots for 1.v: cannot take 3 clusters of 4 rows from 8 rows"),
    ],
)
@pytest.mark.parametrize("settings", [{"backend": "torch"}, {"backend": "k_means_constrained"}, {"method": "serial"}])
def test_of_many_weights_the_one_at_fault_is_named(spoil, message, settings):
    weights = make_weights()
    spoil(weights["1.v"])
    with pytest.raises(ValueError, match=message):
        select_pivots_many(weights.items(), 3, 4, **settings)


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_clusters_as_good_as_the_cpu_s_and_holds_few_weights_at_once(monkeypatch):
    generator = torch.Generator().manual_seed(13)
    weights = {f"{i}": torch.randn(1024, 512, generator=generator).bfloat16() for i in range(24)}
    room = 5 * 4 * 1024 * 512
    monkeypatch.setattr(streaming, "BATCH_BYTES", room)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    streamed = select_pivots_many(weights.items(), 4, 64, backend="torch")  # from the CPU, to the GPU by itself
    assert torch.cuda.max_memory_allocated() - before < 2.5 * room  # 24 of them in float32 take 4.8
    resident = select_pivots_many(((n, w.cuda()) for n, w in weights.items()), 4, 64, backend="torch")
    for name, weight in weights.items():
        assert torch.equal(streamed[name].pivots, resident[name].pivots)
        assert torch.equal(select_pivots(weight.cuda(), 4, 64, backend="torch"), resident[name].pivots)
        assert torch.equal(
            select_pivots(weight.cuda(), 4, 64, backend="torch", device="cpu"),
            select_pivots(weight, 4, 64, backend="torch", device="cpu"),
        )
        (there,), (here,) = (cluster_rows([weight.float().to(device)], 4, 64) for device in ("cuda", "cpu"))
        assert there.objective == pytest.approx(here.objective, rel=1e-3)
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        again = select_pivots(weights["0"].cuda(), 4, 64, backend="torch")
        assert torch.equal(again, resident["0"].pivots)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    adapted = make_adapted("idlora", base=make_base().cuda())
    assert all(layer.idlora_pivots["default"].is_cuda for layer in adapted.pivot_layers("default").values())
