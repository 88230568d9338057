"""A sampled token is the inverse of its distribution at a number that its place alone decides, whatever the batch."""

import itertools
import json

import pytest
import torch
from byte_tokenizer import byte_tokenizer
from oracle import small_model
from steps import ask
from texts import protocol, rows, said
from tokenizers import decoders

from reproduction.evals import generation
from reproduction.evals.answers import Shard
from reproduction.evals.generation import sample

ALMOST_ONE = 1 - 2**-53
"""The largest number below 1 that a generator gives."""


def drawn(probabilities, uniforms, *, top_p: float = 1.0, temperature: float = 1.0) -> list[int]:
    """The tokens of one distribution at several numbers."""
    logits = torch.tensor([probabilities], dtype=torch.float64).log().expand(len(uniforms), -1)
    found = sample(logits, torch.tensor(uniforms, dtype=torch.float64), temperature=temperature, top_p=top_p)
    return found.tolist()


def inverse(probabilities, u: float, top_p: float) -> int:
    """The same from the words: the fewest most probable tokens that reach top_p, then the first that passes u."""
    nucleus, mass = [], 0.0
    for token in sorted(range(len(probabilities)), key=lambda token: (-probabilities[token], token)):
        if mass < top_p:
            nucleus.append(token)
            mass += probabilities[token]
    reached = list(itertools.accumulate(probabilities[token] for token in sorted(nucleus)))
    return next(token for token, mass in zip(sorted(nucleus), reached, strict=True) if mass > u * reached[-1])


@pytest.mark.parametrize(
    ("top_p", "nucleus"),
    [
        (1e-9, [0]),
        (0.25, [0]),
        (0.2501, [0, 2]),
        (0.5, [0, 2]),
        (0.5001, [0, 2, 3]),
        (0.7501, [0, 2, 3, 5]),
        (1, [0, 2, 3, 5]),
    ],
)
def test_of_equally_probable_tokens_the_first_are_the_nucleus(top_p, nucleus):
    quarters = [0.25, 0, 0.25, 0.25, 0, 0.25, 0]  # exact in binary, so that the nucleus' edge is met exactly
    edges = [n / len(nucleus) for n in range(len(nucleus))]
    assert drawn(quarters, edges, top_p=top_p) == nucleus  # at its lower edge a token is reached
    assert drawn(quarters, [*(edge - 1e-9 for edge in edges[1:]), ALMOST_ONE], top_p=top_p) == nucleus


@pytest.mark.parametrize("few", [1, 3, 8, 64])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_a_nucleus_is_the_same_whether_its_tokens_are_few_or_more_than_are_looked_at_first(few, top_p, monkeypatch):
    monkeypatch.setattr(generation, "NUCLEUS", few)
    values = torch.randint(1, 6, (20, 64), generator=torch.Generator().manual_seed(few)).float()  # many are equal
    p = (values.exp() / values.exp().sum(-1, keepdim=True)).float()
    found = generation._nucleus(p, top_p)
    falling, order = p.sort(dim=-1, descending=True, stable=True)
    beyond = falling.double().cumsum(-1) - falling >= top_p
    assert torch.equal(found, p.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0))
    assert (found == 0).any()


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])])
def test_the_first_half_of_very_many_equally_probable_tokens_is_a_nucleus_of_one_half(device):
    uniforms = torch.rand(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = sample(torch.zeros(64, 2**16, device=device), uniforms.to(device), temperature=1.0, top_p=0.5)
    assert torch.equal(found.cpu(), (uniforms * 2**15).long())


@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
def test_every_token_is_the_inverse_of_the_distribution_within_the_nucleus(top_p):
    generator = torch.Generator().manual_seed(0)
    for size in (2, 5, 40):
        probabilities = torch.rand(size, generator=generator, dtype=torch.float64).pow(4)
        probabilities = (probabilities / probabilities.sum()).tolist()
        uniforms = [0.0, ALMOST_ONE, *torch.rand(500, generator=generator, dtype=torch.float64).tolist()]
        assert drawn(probabilities, uniforms, top_p=top_p) == [inverse(probabilities, u, top_p) for u in uniforms]


def test_as_many_numbers_give_a_token_as_it_is_probable():
    even = [(n + 0.5) / 1000 for n in range(1000)]
    for settings, shares in (
        ({}, (500, 300, 0, 200)),
        ({"temperature": 0.5}, (658, 237, 0, 105)),
        ({"top_p": 0.7}, (625, 375, 0, 0)),
        ({"temperature": 1e-3}, (1000, 0, 0, 0)),
    ):
        found = drawn([0.5, 0.3, 0, 0.2], even, **settings)
        assert all(abs(found.count(token) - share) <= 1 for token, share in enumerate(shares))


@pytest.fixture(scope="module")
def symbols():
    """The tokenizer of bytes, except that every token is read as a sign of its own, whatever stands beside it."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    return tokenizer


SAMPLED = {"temperature": 1.0, "top_p": 0.95, "samples": 3, "max_new_tokens": 12}


@pytest.fixture(scope="module", params=["llama", "mistral"])
def model(request):
    """In float32, with fewer heads of keys than of queries, and with a sliding window; many tokens end an answer."""
    model = small_model(request.param).float()
    model.generation_config.eos_token_id = list(range(2, 30))
    return model


def test_equal_answers_come_from_batches_of_every_size_and_order(model, symbols):
    expected = said(model, tokenizer=symbols, batch_size=1, **SAMPLED)
    assert len({text for texts in expected for text in texts}) > 15
    assert len({len(text) for texts in expected for text in texts}) > 5
    for batch_size in (2, 3, 7, 100):
        assert said(model, tokenizer=symbols, batch_size=batch_size, **SAMPLED) == expected
    longer = said(model, tokenizer=symbols, **SAMPLED | {"max_new_tokens": 16})
    assert all(
        long.startswith(short) for a, b in zip(longer, expected, strict=True) for long, short in zip(a, b, strict=True)
    )


class Stopped(Exception):
    pass


def stop(done, total):
    if done >= 4:
        raise Stopped


ROWS = rows()
WAYS = {
    "another order of the rows": [{"rows": ROWS[::-1], "batch_size": 5}],
    "a limit first": [{"limit": 3, "batch_size": 2}, {"batch_size": 7}],
    "fewer samples first": [{"samples": 1, "batch_size": 3}, {"samples": 2, "batch_size": 1}, {"batch_size": 7}],
    "an interruption and another batch size": [{"progress": stop, "batch_size": 2}, {"batch_size": 7}],
    "shares": [*({"share": Shard(n, 3), "batch_size": 2} for n in range(3)), {"batch_size": 7}],
    "shares, one of them interrupted": [
        {"share": Shard(0, 2), "batch_size": 4},
        {"share": Shard(1, 2), "batch_size": 4, "progress": stop},
        {"batch_size": 7},
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_equal_answers_come_in_every_way_and_each_is_decoded_once(way, model, symbols, tmp_path):
    def answers(folder, *, rows=ROWS, limit=None, samples=3, **more) -> dict:
        asked = protocol(**SAMPLED | {"samples": samples, "limit": limit})
        log = ask(model, asked, rows, tmp_path / folder, tokenizer=symbols, **more)
        return {(each["item_id"], each["sample"]): {**each, "cost": None} for each in log}

    expected = answers("at once")
    for step in WAYS[way]:
        try:
            found = answers("in steps", **step)
        except Stopped:
            assert step["progress"] is stop
    assert found == expected
    at_once, in_steps = (
        json.loads((tmp_path / folder / "answers" / "throughput.json").read_text())
        for folder in ("at once", "in steps")
    )
    assert in_steps["generated_tokens"] == at_once["generated_tokens"] > 100
