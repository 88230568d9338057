"""The cache of tokenized sets: what is found in it, what is not, and that it never stops a run."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from byte_tokenizer import byte_tokenizer
from tokenizers.processors import TemplateProcessing

from reproduction.data import DataError, Example, token_cache, tokenize
from reproduction.data.token_cache import tokenize_once
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
    monkeypatch.setattr(token_cache, "tokenize", lambda *given, **more: calls.append(1) or tokenize(*given, **more))
    return calls


def test_the_second_time_gives_the_same_set_whatever_the_tokenizers_place_and_last_call(
    folder, tokenized_anew, tmp_path
):
    first = tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)
    assert first.truncated == 2
    byte_tokenizer().save_pretrained(tmp_path / "elsewhere")
    elsewhere = type(byte_tokenizer()).from_pretrained(tmp_path / "elsewhere")
    elsewhere(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert tokenize_once(EXAMPLES, elsewhere, max_length=24) == first == tokenize(EXAMPLES, elsewhere, max_length=24)
    assert tokenized_anew == [1]


def _changed_tokenizer(**change):
    tokenizer = byte_tokenizer()
    if "start" in change:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    else:
        tokenizer.eos_token = tokenizer.bos_token
    return tokenizer


@pytest.mark.parametrize(
    "changed",
    [
        lambda: (EXAMPLES, _changed_tokenizer(start=True), 24),
        lambda: (EXAMPLES, _changed_tokenizer(end=True), 24),
        lambda: (EXAMPLES, byte_tokenizer(), 25),
        lambda: (EXAMPLES[::-1], byte_tokenizer(), 24),
        *[
            lambda change=change: ([replace(EXAMPLES[0], **change), *EXAMPLES[1:]], byte_tokenizer(), 24)
            for change in ({"prompt": "Prüfe 0: "}, {"response": "nein"}, {"id": "train/x"})
        ],
    ],
)
def test_whatever_changes_a_token_or_an_id_is_another_set(changed, folder):
    tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)
    examples, tokenizer, max_length = changed()
    found = tokenize_once(examples, tokenizer, max_length=max_length)
    assert found == tokenize(examples, tokenizer, max_length=max_length)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: content.replace(b"\x00", b"\x01")]
)
def test_a_damaged_file_is_warned_of_and_made_again(damage, folder, caplog, tokenized_anew):
    first = tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24) == first
    assert f"{path} is damaged" in caplog.text
    assert tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24) == first
    assert tokenized_anew == [1, 1]


def test_a_folder_that_cannot_be_written_to_costs_the_cache_alone_and_none_is_kept_where_it_is_off(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IDLORA_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert len(tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)) == 60
    assert "could not be kept" in caplog.text
    monkeypatch.setenv("IDLORA_CACHE", "")
    assert cache_folder("tokenized") is None
    assert len(tokenize_once(EXAMPLES, byte_tokenizer(), max_length=24)) == 60
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_refused_set_leaves_nothing(folder):
    with pytest.raises(DataError, match="do not fit"):
        tokenize_once(EXAMPLES, byte_tokenizer(), max_length=12)
    assert not folder.exists()


def test_the_cache_lies_where_it_is_told_or_beside_the_hubs(monkeypatch, tmp_path):
    monkeypatch.setenv("IDLORA_CACHE", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("pivots") == tmp_path / "mine" / "pivots"
    monkeypatch.delenv("IDLORA_CACHE")
    monkeypatch.setattr("reproduction.system.cache.HF_HOME", str(tmp_path / "hf"))
    assert cache_folder("pivots") == tmp_path / "hf" / "idlora" / "pivots"
