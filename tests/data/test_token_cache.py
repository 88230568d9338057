"""The cache of tokenized sets: what is found in it, what is not, and that it never stops a run."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
from byte_tokenizer import byte_tokenizer

from reproduction.data import DataError, Example, token_cache, tokenize, tokenize_once
from reproduction.system.cache import cache_folder

EXAMPLES = [
    Example(id=f"train/{n}", prompt=f"Prüfe {n}:\n", response="ja" * (9 if n in (5, 50) else n % 5 + 1))
    for n in range(60)
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path))
    return tmp_path / "tokenized"


@pytest.fixture
def tokenized_anew(monkeypatch) -> list:
    """One entry for each time that a set is not found and tokenized."""
    calls = []

    def counted(examples, tokenizer, **options):
        calls.append(len(examples))
        return tokenize(examples, tokenizer, **options)

    monkeypatch.setattr(token_cache, "tokenize", counted)
    return calls


def test_the_second_time_gives_the_same_set_from_the_folder(folder, tokenized_anew):
    first = tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)
    assert first.truncated == 2
    assert [path.suffix for path in folder.iterdir()] == [".npz"]
    again = tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)
    assert again == first == tokenize(EXAMPLES, byte_tokenizer(), max_length=24)
    assert again.report() == first.report()
    assert tokenized_anew == [60]


def test_a_tokenizer_is_known_by_its_content_and_not_by_its_place_or_its_last_call(folder, tmp_path, tokenized_anew):
    tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)
    byte_tokenizer().save_pretrained(tmp_path / "elsewhere")
    elsewhere = type(byte_tokenizer()).from_pretrained(tmp_path / "elsewhere")
    elsewhere(["a", "bcd"], padding=True, truncation=True, max_length=2)
    tokenize_once(EXAMPLES, elsewhere, max_length=24)
    assert tokenized_anew == [60]


def _with_a_start():
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def _ending_otherwise():
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = tokenizer.bos_token
    return tokenizer


@pytest.mark.parametrize(
    "changed",
    [
        lambda: (EXAMPLES, _with_a_start(), 24),
        lambda: (EXAMPLES, _ending_otherwise(), 24),
        lambda: (EXAMPLES, byte_tokenizer(), 25),
        lambda: (EXAMPLES[:-1], byte_tokenizer(), 24),
        lambda: (EXAMPLES[::-1], byte_tokenizer(), 24),
        lambda: ([replace(EXAMPLES[0], prompt="Prüfe 0: "), *EXAMPLES[1:]], byte_tokenizer(), 24),
        lambda: ([replace(EXAMPLES[0], response="nein"), *EXAMPLES[1:]], byte_tokenizer(), 24),
        lambda: ([replace(EXAMPLES[0], id="train/x"), *EXAMPLES[1:]], byte_tokenizer(), 24),
    ],
)
def test_whatever_changes_a_token_or_an_id_is_another_set(changed, folder):
    tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)
    examples, tokenizer, max_length = changed()
    found = tokenize_once(examples, tokenizer, max_length=max_length)
    assert found == tokenize(examples, tokenizer, max_length=max_length)
    assert len(list(folder.iterdir())) == 2


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda path: path.write_bytes(path.read_bytes()[:-400]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no archive"),
    ],
)
def test_a_damaged_file_is_warned_of_and_made_again(damage, folder, caplog, tokenized_anew):
    first = tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24) == first
    assert f"{path} is damaged" in caplog.text
    assert tokenized_anew == [60, 60]
    assert len(path.read_bytes()) == len(whole)
    assert tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24) == first
    assert tokenized_anew == [60, 60]


def test_a_folder_that_cannot_be_written_to_costs_the_cache_alone(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert len(tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)) == 60
    assert "could not be kept" in caplog.text


def test_a_refused_set_is_refused_every_time_and_leaves_nothing(folder):
    for _ in range(2):
        with pytest.raises(DataError, match="do not fit"):
            tokenize_once(EXAMPLES, byte_tokenizer(), max_length=12)
    assert not folder.exists()


def test_an_empty_variable_turns_the_cache_off(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IDLORA_CACHE", "")
    assert cache_folder("tokenized") is None
    assert len(tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)) == 60
    assert list(tmp_path.iterdir()) == []


def test_the_cache_lies_where_it_is_told_or_beside_the_hubs(monkeypatch, tmp_path, own_cache):
    assert cache_folder("tokenized") == own_cache / "tokenized"
    assert os.environ["IDLORA_CACHE"] == str(own_cache)
    monkeypatch.setenv("IDLORA_CACHE", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("pivots") == tmp_path / "mine" / "pivots"
    monkeypatch.delenv("IDLORA_CACHE")
    monkeypatch.setattr("reproduction.system.cache.HF_HOME", str(tmp_path / "hf"))
    assert cache_folder("pivots") == tmp_path / "hf" / "idlora" / "pivots"
