"""Decoding says what the model says, however it is batched and padded."""

from types import SimpleNamespace

import pytest
import torch
from letter_tokenizers import sentencepiece
from oracle import TOKENIZER, VOCABULARY, Oracle, small_model
from peft import LoraConfig, get_peft_model
from texts import TEXTS, said

from reproduction.data import Example, tokenize
from reproduction.data.tokenization import IGNORED
from reproduction.evals import decoding
from reproduction.evals.generation import Generation


def alone(model, text: str, max_new_tokens: int) -> list[str]:
    """What transformers' own greedy search says to one prompt, without padding or batch."""
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


def test_of_equally_probable_tokens_greedy_decoding_takes_the_first():
    assert said(Dice(0.2, 0.4, 0.4), ["x"] * 9) == [["B" * 12]] * 9


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"temperature": 1.0}, (0.5, 0.3, 0.2)),
        ({"temperature": 0.5}, (0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38)),
        ({"temperature": 1.0, "top_p": 0.7}, (0.625, 0.375, 0)),
    ],
)
def test_samples_follow_temperature_and_nucleus(settings, shares):
    drawn = said(Dice(0.5, 0.3, 0.2), ["a", "b"], batch_size=200, max_new_tokens=20, samples=100, **settings)
    assert len({text for texts in drawn for text in texts}) > 150  # no two answers share their random numbers
    for letters in ("".join(drawn[0]), "".join(text[0] for texts in drawn for text in texts)):
        for letter, share in zip("ABC", shares, strict=True):
            deviation = (share * (1 - share) / len(letters)) ** 0.5
            assert abs(letters.count(letter) / len(letters) - share) <= 4 * deviation


@pytest.mark.parametrize(("samples", "batches"), [(1, 2), (3, 7), (5, 7 + 2)])
def test_no_batch_holds_more_answers_than_its_size_and_the_longest_prompts_are_read_first(samples, batches):
    oracle, shapes = Oracle({}, default="xy"), []
    oracle.register_forward_pre_hook(lambda _, args, given: shapes.append(given["input_ids"].shape), with_kwargs=True)
    said(oracle, batch_size=4, temperature=1.0, samples=samples)
    assert len(shapes) == 3 * batches  # a prompt is read once for all samples of a batch
    assert max(rows for rows, _ in shapes) <= 4
    lengths = [length for _, length in shapes if length > 1][:6]  # one prompt is one token long
    assert lengths == sorted(lengths, reverse=True)


def test_answers_of_different_length_end_where_they_should_while_others_go_on():
    wanted = {text: "x" * (1 + 7 * number) + "é." for number, text in enumerate(TEXTS)}
    assert said(Oracle(wanted), batch_size=100, max_new_tokens=64) == [[text] for text in wanted.values()]


@pytest.mark.parametrize("every", [1, 3, 8])
def test_how_often_the_decoder_is_looked_at_has_no_say(every, monkeypatch):
    wanted = {text: "x" * (1 + 7 * number) + "é." for number, text in enumerate(TEXTS)}
    monkeypatch.setattr(decoding.GrowingDecoder, "look_every", every)
    oracle = Oracle(wanted)
    assert said(oracle, batch_size=100, max_new_tokens=64) == [[text] for text in wanted.values()]
    assert oracle.calls <= 7 * 6 + 4 + every + 1  # the longest answer, its end, and no more than one look beyond
    assert said(Oracle({}, default="0123456789"), max_new_tokens=4) == [["0123"]] * len(TEXTS)


def test_a_stop_string_is_looked_for_at_the_end_of_an_answer_alone_and_found_however_far_it_reaches_back(monkeypatch):
    seen = []
    texts = Generation._texts
    monkeypatch.setattr(Generation, "_texts", lambda *given: seen.append(max(map(len, given[2]))) or texts(*given))
    stop = "\n" + "=" * 30
    oracle = Oracle({}, default="y" * 190 + stop + "z" * 900)
    assert said(oracle, ["x"], stops=(stop,), max_new_tokens=1200) == [["y" * 190]]
    assert oracle.calls < 190 + 31 + 2 * 8
    assert sorted(seen)[-3] < 60  # the last two are of the whole answer


def test_an_answer_is_no_longer_than_allowed():
    assert said(Oracle({}, default="0123456789"), max_new_tokens=4) == [["0123"]] * len(TEXTS)


def test_an_answer_ends_before_the_first_stop_string():
    wanted = {
        "a": "one\ndef two\nclass three",
        "b": "no stop here",
        "c": "\ndef at once",
        "d": "x" * 30 + "\nclass",
    }
    found = said(Oracle(wanted), list(wanted), stops=("\nclass", "\ndef"), max_new_tokens=200)
    assert [text for (text,) in found] == ["one", "no stop here", "", "x" * 30]
    assert said(Oracle({}, default="a.c.b.c"), ["x"], stops=("b", "c")) == [["a."]]


def test_decoding_ends_soon_after_every_answer_has_its_stop():
    oracle = Oracle({}, default="abc\ndef " + "y" * 150)
    said(oracle, batch_size=100, stops=("\ndef",), max_new_tokens=150)
    assert oracle.calls < 20


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


def test_samples_differ_and_the_programs_own_random_numbers_have_no_say_and_stay():
    model, sampled = small_model(), {"temperature": 1.0, "samples": 4}
    first = said(model, **sampled)
    assert all(len(set(texts)) == 4 for texts in first)
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    assert said(model, **sampled) == first
    assert torch.equal(torch.rand(3), expected)
    assert said(model, **sampled, seed=1) != first


def test_a_small_nucleus_at_any_temperature_is_greedy():
    model = small_model()
    assert said(model, temperature=1.0, top_p=1e-6) == said(model) != said(model, temperature=1.0)


def test_a_prompt_without_room_for_an_answer_is_refused():
    with pytest.raises(ValueError, match=r"max_new_tokens=4096 exceed the model's context of 4096"):
        said(small_model(), max_new_tokens=4096)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_says_what_the_cpu_says_and_draws_the_same_samples_in_any_batch():
    assert said(small_model().cuda(), max_new_tokens=40) == said(small_model(), max_new_tokens=40)
    for kind in ("llama", "mistral"):
        model = small_model(kind).float().cuda()
        first, *others = (said(model, batch_size=size, temperature=1.0, top_p=0.95, samples=3) for size in (3, 100, 3))
        assert others == [first] * 2
        assert all(len(set(texts)) == 3 for texts in first)
