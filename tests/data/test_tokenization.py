import pytest
from byte_tokenizer import byte_tokenizer
from tokenizers.processors import TemplateProcessing

from reproduction.data import DataError, Example, encode_prompts, tokenize


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def examples(*pairs: tuple[str, str]) -> list[Example]:
    return [Example(id=str(index), prompt=prompt, response=response) for index, (prompt, response) in enumerate(pairs)]


def test_the_loss_sees_the_response_and_its_end_and_nothing_else(tokenizer):
    (row,) = tokenize(examples(("Ask:\n", "Yes")), tokenizer, max_length=32).rows
    assert tokenizer.decode(row["input_ids"]) == "Ask:\nYes</s>"
    assert len(row["labels"]) == len(row["input_ids"])
    seen = [label for label in row["labels"] if label != -100]
    assert tokenizer.decode(seen) == "Yes</s>"
    assert row["labels"][-len(seen) :] == seen


def test_the_tokenizer_s_own_start_token_opens_the_prompt_and_only_it(tokenizer):
    starting = byte_tokenizer()
    starting.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    (row,) = tokenize(examples(("Ask:\n", "Yes")), starting, max_length=32).rows
    assert row["input_ids"].count(1) == 1
    assert row["input_ids"][0] == 1
    assert row["labels"][0] == -100


@pytest.mark.parametrize("added", ["", "<s> ", "<s> <s> "])
def test_the_start_token_stands_once_although_a_prompt_writes_it_out_or_the_tokenizer_adds_it_twice(added):
    starting = byte_tokenizer()
    starting.backend_tokenizer.post_processor = TemplateProcessing(single=f"{added}$A", special_tokens=[("<s>", 1)])
    ask = starting("Ask", add_special_tokens=False)["input_ids"]
    plain, written, within = encode_prompts(starting, ["Ask", "<s>Ask", "<s>Ask<s><s>"])
    assert (plain, written) == ([1, *ask] if added else ask, [1, *ask])
    assert within == [1, *ask, 1, 1]
    assert tokenize(examples(("<s>Ask", "Yes")), starting, max_length=32).rows[0]["input_ids"].count(1) == 1


def test_prompts_of_a_tokenizer_without_a_start_token_are_encoded_as_they_are():
    startless = byte_tokenizer()
    startless.bos_token = None
    assert encode_prompts(startless, ["aab", ""]) == [startless("aab")["input_ids"], []]
    assert encode_prompts(startless, []) == []


def test_a_response_that_does_not_fit_is_cut_and_counted_and_its_prompt_stays_whole(tokenizer):
    tokenized = tokenize(examples(("12345", "abcdef"), ("12345", "abcd")), tokenizer, max_length=10, max_cut_share=1)
    assert [tokenizer.decode(row["input_ids"]) for row in tokenized.rows] == ["12345abcde", "12345abcd</s>"]
    assert tokenized.truncated == 1
    assert tokenized.report() == {
        "rows": 2, "examples": 2, "tokens": 20, "response_tokens": 10, "truncated": 1, "dropped_empty": 0,
        "dropped_long": 0, "sources": {},
    }  # fmt: skip


def test_the_account_says_how_many_examples_each_source_gave(tokenizer):
    made = [Example(id=id, prompt="1", response="a") for id in ("gsm8k/train/0", "alpaca/train/7", "gsm8k/train/9")]
    assert tokenize(made, tokenizer, max_length=10).report()["sources"] == {"gsm8k/train": 2, "alpaca/train": 1}


def test_a_prompt_that_leaves_no_room_is_left_out_and_counted(tokenizer):
    tokenized = tokenize(
        examples(("1234567890", "a"), ("123456789", "a"), ("1", "a")), tokenizer, max_length=10, max_cut_share=1
    )
    assert tokenized.ids == ["1", "2"]
    assert (tokenized.dropped_long, tokenized.truncated) == (1, 1)


def test_empty_responses_are_left_out_and_counted(tokenizer):
    answered = [("1", "a")] * 19
    tokenized = tokenize(examples(("1", ""), *answered), tokenizer, max_length=10)
    assert (tokenized.ids[0], len(tokenized), tokenized.dropped_empty) == ("1", 19, 1)
    with pytest.raises(DataError, match=r"2 of 21 examples \(9\.5%\) have an empty response.*the first is 3\)"):
        tokenize(examples(*answered[:3], ("1", ""), *answered[3:], ("1", "")), tokenizer, max_length=10)
    with pytest.raises(DataError, match="None of the 1 examples has a response"):
        tokenize(examples(("1", "")), tokenizer, max_length=10)


@pytest.mark.parametrize("pair", [("12345", "abcdefgh"), ("1234567890", "a")])
def test_more_than_a_twentieth_cut_or_left_out_is_refused_with_the_length_needed(tokenizer, pair):
    fits = [("1", "a")] * 19
    assert len(tokenize(examples(*fits, pair), tokenizer, max_length=10).rows) >= 19
    with pytest.raises(DataError, match=r"2 of 21 examples \(9\.5%\) do not fit in max_length=10.*longest has 1[24] "):
        tokenize(examples(*fits, pair, pair), tokenizer, max_length=10)


def test_a_length_that_no_prompt_fits_in_is_refused_even_where_cuts_are_allowed(tokenizer):
    with pytest.raises(DataError, match=r"No prompt leaves room .* max_length=3"):
        tokenize(examples(("1234", "a")), tokenizer, max_length=3, max_cut_share=1)


def test_a_tokenizer_without_an_end_token_is_refused():
    endless = byte_tokenizer()
    endless.eos_token = None
    with pytest.raises(DataError, match="no end token"):
        tokenize(examples(("1", "a")), endless, max_length=10)
