"""Decoding says what the model says, however it is batched and padded, and samples are the seed's alone."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from byte_tokenizer import byte_tokenizer
from letter_tokenizers import sentencepiece
from oracle import TOKENIZER, VOCABULARY, Oracle, small_model
from peft import LoraConfig, get_peft_model
from steps import ask
from texts import TEXTS, protocol, rows, said
from tokenizers import decoders

from reproduction.data import Example, tokenize
from reproduction.data.tokenization import IGNORED
from reproduction.evals import batching, decoding, generation
from reproduction.evals.answers import Shard
from reproduction.evals.generation import sample

ALMOST_ONE = 1 - 2**-53  # the largest number below 1 that a generator gives
STEPWISE = {text: "x" * (1 + 7 * number) + "é." for number, text in enumerate(TEXTS)}
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def alone(model, text: str, max_new_tokens: int) -> list[str]:
    """Return the answer of transformers' greedy search to one prompt, without padding or batch."""
    inputs = TOKENIZER(text, return_tensors="pt")
    found = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return [TOKENIZER.decode(found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)]


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_greedy_answers_are_those_of_transformers_one_by_one_in_any_batch(kind):
    model = small_model(kind)
    expected = [alone(model, text, 40) for text in TEXTS]  # beyond the sliding window of 16
    assert len({text for (text,) in expected}) > 3
    for batch_size in (1, 3, 100):
        assert said(model, batch_size=batch_size, max_new_tokens=40) == expected


def test_an_adapter_is_decoded_with_its_adapter():
    base = small_model()
    plain = said(base)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).double()
    assert said(model) == [alone(model, text, 12) for text in TEXTS] != plain


class Dice(Oracle):
    """Says A, B or C with these probabilities, whatever it is asked."""

    def __init__(self, *probabilities: float):
        super().__init__({})
        self.logits = torch.full((VOCABULARY,), -torch.inf)
        self.logits[TOKENIZER("ABC")["input_ids"]] = torch.tensor(probabilities).log()

    def forward(self, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep):
        keys = torch.zeros(*input_ids.shape, 1, 1).transpose(1, 2)
        past_key_values.update(keys, keys, 0)
        return SimpleNamespace(logits=self.logits.expand(len(input_ids), 1, -1))


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"temperature": 1.0}, (0.5, 0.3, 0.2)),
        ({"temperature": 0.5}, (0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38)),
        ({"temperature": 1.0, "top_p": 0.7}, (0.625, 0.375, 0)),
        ({"temperature": 1.0, "top_p": 1e-6}, (1, 0, 0)),
    ],
)
def test_samples_follow_temperature_and_nucleus(settings, shares):
    drawn = said(Dice(0.5, 0.3, 0.2), ["a", "b"], batch_size=200, max_new_tokens=20, samples=100, **settings)
    assert len({text for texts in drawn for text in texts}) > 150 or 1 in shares  # none share their random numbers
    for letters in ("".join(drawn[0]), "".join(text[0] for texts in drawn for text in texts)):
        for letter, share in zip("ABC", shares, strict=True):
            deviation = (share * (1 - share) / len(letters)) ** 0.5
            assert abs(letters.count(letter) / len(letters) - share) <= 4 * deviation
    assert said(Dice(0.2, 0.4, 0.4), ["x"]) == [["B" * 12]]  # of equally probable tokens greedy takes the first


@pytest.mark.parametrize(("samples", "batches"), [(1, 2), (3, 7), (5, 7 + 2)])
def test_no_batch_holds_more_answers_than_its_size_and_the_longest_prompts_are_read_first(samples, batches):
    oracle, shapes = Oracle({}, default="xy"), []
    oracle.register_forward_pre_hook(lambda _, args, given: shapes.append(given["input_ids"].shape), with_kwargs=True)
    said(oracle, batch_size=4, temperature=1.0, samples=samples)
    assert len(shapes) == 3 * batches  # a prompt is read once for all samples of a batch
    assert max(rows for rows, _ in shapes) <= 4
    lengths = [length for _, length in shapes if length > 1][:6]  # one prompt is one token long
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("every", [1, 3, 8])
def test_answers_end_where_they_should_while_others_go_on_however_often_they_are_looked_at(every, monkeypatch):
    monkeypatch.setattr(decoding.GrowingDecoder, "look_every", every)
    oracle = Oracle(STEPWISE)
    assert said(oracle, batch_size=100, max_new_tokens=64) == [[text] for text in STEPWISE.values()]
    assert oracle.calls <= 7 * 6 + 4 + every + 1  # the longest answer, its end, and no more than one look beyond
    assert said(Oracle({}, default="0123456789"), max_new_tokens=4) == [["0123"]] * len(TEXTS)


def test_an_answer_ends_before_the_first_stop_string_and_decoding_soon_after():
    wanted = {"a": "one\ndef two\nclass three", "b": "no stop", "c": "\ndef at once", "d": "x" * 30 + "\nclass"}
    found = said(Oracle(wanted), list(wanted), stops=("\nclass", "\ndef"), max_new_tokens=200)
    assert [text for (text,) in found] == ["one", "no stop", "", "x" * 30]
    assert said(Oracle({}, default="a.c.b.c"), ["x"], stops=("b", "c")) == [["a."]]
    stop = "\n" + "=" * 30
    oracle = Oracle({}, default="y" * 190 + stop + "z" * 900)
    assert said(oracle, ["x"], stops=(stop,), max_new_tokens=1200) == [["y" * 190]]
    assert oracle.calls < 190 + 31 + 2 * 8


@pytest.mark.parametrize("response", ["def f(x):\n    return x", "    return x", "B"])
def test_an_answer_is_read_as_training_writes_it_in_the_template_and_as_the_text_goes_on_without(response):
    tokenizer, prompt = sentencepiece(), "### Response:\n"
    row = tokenize([Example("a", prompt, response)], tokenizer, max_length=99).rows[0]
    taught = [id for id in row["labels"] if id != IGNORED][:-1]
    goes_on = tokenizer(prompt + response)["input_ids"][len(tokenizer(prompt)["input_ids"]) :]
    assert taught != goes_on  # a space is put before what is tokenized by itself

    def answer(tokens, **changes):
        return said(Oracle({prompt: tokens}, tokenizer=tokenizer), [prompt], tokenizer=tokenizer, **changes)

    for stops in ((), ("\n#",)):  # a stop string is looked for in the same text
        settings = {"max_new_tokens": 60, "stops": stops}
        assert answer(taught, apart=True, **settings) == answer(goes_on, apart=False, **settings) == [[response]]
        assert answer(taught, apart=False, **settings) == [[" " + response]]


def test_samples_differ_by_seed_and_the_programs_own_random_numbers_have_no_say_and_stay():
    model, sampled = small_model(), {"temperature": 1.0, "samples": 4}
    first = said(model, **sampled)
    assert all(len(set(texts)) == 4 for texts in first)
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    assert said(model, **sampled) == first
    assert torch.equal(torch.rand(3), expected)
    assert said(model, **sampled, seed=1) != first


# A sampled token


def drawn(probabilities, uniforms, *, top_p: float = 1.0) -> list[int]:
    """The tokens of one distribution at several numbers."""
    logits = torch.tensor([probabilities], dtype=torch.float64).log().expand(len(uniforms), -1)
    return sample(logits, torch.tensor(uniforms, dtype=torch.float64), temperature=1.0, top_p=top_p).tolist()


def inverse(probabilities, u: float, top_p: float) -> int:
    """The same from the words: the fewest most probable tokens that reach top_p, then the first that passes u."""
    nucleus, mass = [], 0.0
    for token in sorted(range(len(probabilities)), key=lambda token: (-probabilities[token], token)):
        if mass < top_p:
            nucleus.append(token)
            mass += probabilities[token]
    reached = list(itertools.accumulate(probabilities[token] for token in sorted(nucleus)))
    return next(token for token, mass in zip(sorted(nucleus), reached, strict=True) if mass > u * reached[-1])


@pytest.mark.parametrize("few", [1, 8, 512])  # tokens that are looked at first for a nucleus
@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
def test_every_token_is_the_inverse_of_the_distribution_within_the_nucleus(top_p, few, monkeypatch):
    monkeypatch.setattr(generation, "NUCLEUS", few)
    generator = torch.Generator().manual_seed(0)
    for size in (2, 5, 40):
        probabilities = torch.rand(size, generator=generator, dtype=torch.float64).pow(4)
        probabilities = (probabilities / probabilities.sum()).tolist()
        uniforms = [0.0, ALMOST_ONE, *torch.rand(500, generator=generator, dtype=torch.float64).tolist()]
        assert drawn(probabilities, uniforms, top_p=top_p) == [inverse(probabilities, u, top_p) for u in uniforms]


@pytest.mark.parametrize(("top_p", "nucleus"), [(1e-9, [0]), (0.25, [0]), (0.2501, [0, 2]), (0.7501, [0, 2, 3, 5])])
def test_of_equally_probable_tokens_the_first_are_the_nucleus(top_p, nucleus):
    quarters = [0.25, 0, 0.25, 0.25, 0, 0.25, 0]  # exact in binary, so that the nucleus' edge is met exactly
    edges = [n / len(nucleus) for n in range(len(nucleus))]
    assert drawn(quarters, edges, top_p=top_p) == nucleus  # at its lower edge a token is reached
    assert drawn(quarters, [*(edge - 1e-9 for edge in edges[1:]), ALMOST_ONE], top_p=top_p) == nucleus


@pytest.fixture(scope="module")
def symbols():
    """The tokenizer of bytes, except that every token is read as a sign of its own, whatever stands beside it."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    return tokenizer


ROWS = rows()
DRAWN = {"temperature": 1.0, "top_p": 0.95, "samples": 3, "max_new_tokens": 12}


class Stopped(Exception):
    pass


def stop(done, total):
    if done >= 4:
        raise Stopped


WAYS = {
    "another order of the rows": [{"rows": ROWS[::-1], "batch_size": 5}],
    "one by one": [{"batch_size": 1}],
    "a limit and fewer samples first": [
        {"limit": 3, "batch_size": 2}, {"samples": 2, "batch_size": 1}, {"batch_size": 7},
    ],
    "an interruption and another batch size": [{"progress": stop, "batch_size": 2}, {"batch_size": 7}],
    "shards, one of them interrupted": [
        {"share": Shard(0, 2), "batch_size": 4},
        {"share": Shard(1, 2), "batch_size": 4, "progress": stop},
        {"batch_size": 7},
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_equal_samples_come_in_every_way_and_each_is_decoded_once(kind, symbols, tmp_path):
    model = small_model(kind).float()  # with fewer heads of keys than of queries, and with a sliding window
    model.generation_config.eos_token_id = list(range(2, 30))  # many tokens end an answer

    def answers(folder, *, rows=ROWS, limit=None, samples=3, **more) -> dict:
        asked = protocol(**DRAWN | {"samples": samples, "limit": limit})
        log = ask(model, asked, rows, tmp_path / folder, tokenizer=symbols, **more)
        return {(each["item_id"], each["sample"]): {**each, "cost": None} for each in log}

    expected = answers("at once")
    assert len({each["raw"] for each in expected.values()}) > 15
    for way, steps in WAYS.items():
        for step in steps:
            try:
                found = answers(way, **step)
            except Stopped:
                assert step["progress"] is stop
        assert found == expected, way


# How many side by side


def as_on_gpu(model, monkeypatch, *memory: int, allowed: float = 1.0):
    """The model as it looks where GPUs of so many bytes are visible."""
    found = [SimpleNamespace(total_memory=each) for each in memory]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: allowed)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: found[number])
    return SimpleNamespace(
        config=model.config, dtype=model.dtype, device=torch.device("cuda"), parameters=model.parameters
    )


def test_what_fits_follows_from_the_smallest_gpus_memory_beside_the_weights(monkeypatch):
    model = small_model()
    cache = model(torch.tensor([[5, 6, 7]]), use_cache=True).past_key_values
    held = sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))
    assert batching.key_value_bytes(model) == held / 3
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    each = held // 3 * 100 + batching.LOGIT_BYTES * model.config.vocab_size
    room = weights + int(10.5 * each / batching.KEPT_SHARE)

    def rows(*memory: int, length: int = 100, **more) -> int:
        return batching.answers_side_by_side(as_on_gpu(model, monkeypatch, *memory, **more), length=length)

    assert {rows(room), rows(room, 10**12), rows(10**12, room), rows(2 * room, allowed=0.5)} == {10}
    assert rows(room, length=1000) < 10
    assert (rows(weights // 2), rows(10**15)) == (1, batching.MOST_ROWS)
    assert batching.answers_side_by_side(model, length=100) == batching.CPU_ROWS
    logits = as_on_gpu(model, monkeypatch, weights + 10 * 640 * (model.dtype.itemsize + 12) + 10)
    assert (batching.logits_at_once(logits), batching.logits_at_once(model)) == (640, 2**27)
    assert (batching.texts_side_by_side(logits), batching.texts_side_by_side(model)) == (2048, 200)
    copies = as_on_gpu(model, monkeypatch, weights + 10 * 7 * 50 * held // 3 + 10)
    assert batching.shared_rows(copies, length=50) == 7


@pytest.mark.gpu
@on_gpu
def test_a_gpu_says_what_the_cpu_says_and_draws_the_same_samples_in_any_batch():
    assert said(small_model().cuda(), max_new_tokens=40) == said(small_model(), max_new_tokens=40)
    for kind in ("llama", "mistral"):
        model = small_model(kind).float().cuda()
        first, *others = (said(model, batch_size=size, temperature=1.0, top_p=0.95, samples=3) for size in (3, 100, 3))
        assert others == [first] * 2
        assert all(len(set(texts)) == 3 for texts in first)
