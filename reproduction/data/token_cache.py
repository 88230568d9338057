"""Cache of tokenized sets, keyed by content.

The key hashes the examples (rendered prompts, responses, ids), the whole state of the tokenizer, and the length limit:
everything that affects a token. The folder may be deleted at any time.

    <cache>/tokenized/<key>.npz     concatenated input_ids; each row's length and prompt length; ids; counts
"""

import hashlib
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import tokenizers

from reproduction.data.examples import Example
from reproduction.data.tokenization import IGNORED, TokenizedSet, tokenize
from reproduction.system.atomic import written_whole
from reproduction.system.cache import cache_folder

logger = logging.getLogger(__name__)

FORMAT = 2  # increase when `tokenize` or the file format changes


def tokenize_once(examples: list[Example], tokenizer, *, max_length: int) -> TokenizedSet:
    """Return the result of `tokenize`, from the cache if possible. Raises DataError, see `tokenize`.

    Damaged files are replaced, and an unwritable folder disables the cache, each with a warning. Results of a tokenizer
    without a `tokenizers` backend are not cached, because its state cannot be hashed.
    """
    folder, backend = cache_folder("tokenized"), getattr(tokenizer, "backend_tokenizer", None)
    if folder is None or backend is None:
        return tokenize(examples, tokenizer, max_length=max_length)
    path = folder / f"{_key(examples, tokenizer, max_length)}.npz"
    if path.is_file():
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s is damaged (%s), and made again.", path, error)
    tokenized = tokenize(examples, tokenizer, max_length=max_length)
    try:
        _write(path, tokenized)
    except OSError as error:
        logger.warning("The tokenized set could not be kept in %s: %s.", path, error.strerror)
    return tokenized


def _key(examples: list[Example], tokenizer, max_length: int) -> str:
    backend = tokenizer.backend_tokenizer
    backend.no_padding()  # may be left over from another call; every call sets it again
    backend.no_truncation()
    options = [FORMAT, tokenizers.__version__, type(tokenizer).__name__, tokenizer.eos_token_id, max_length]
    total = hashlib.sha256(json.dumps([*options, getattr(tokenizer, "split_special_tokens", False)]).encode())
    total.update(hashlib.sha256(backend.to_str().encode()).digest())
    for example in examples:
        total.update(json.dumps([example.id, example.prompt, example.response]).encode() + b"\n")
    return total.hexdigest()


def _write(path: Path, tokenized: TokenizedSet) -> None:
    rows = tokenized.rows
    with written_whole(path) as file:
        np.savez(
            file,
            input_ids=np.array([token for row in rows for token in row["input_ids"]], dtype=np.int32),
            lengths=np.array([len(row["input_ids"]) for row in rows], dtype=np.int32),
            prompts=np.array([row["labels"].count(IGNORED) for row in rows], dtype=np.int32),
            ids=np.frombuffer(json.dumps(tokenized.ids).encode(), dtype=np.uint8),
            counts=np.array([tokenized.truncated, tokenized.dropped_empty, tokenized.dropped_long], dtype=np.int64),
        )


def _read(path: Path) -> TokenizedSet:
    with np.load(path, allow_pickle=False) as file:
        tokens, ids = file["input_ids"].tolist(), json.loads(file["ids"].tobytes())
        lengths, prompts, counts = (file[name].tolist() for name in ("lengths", "prompts", "counts"))
    rows, start = [], 0
    for length, prompt in zip(lengths, prompts, strict=True):
        own = tokens[start : start + length]
        rows.append({"input_ids": own, "labels": [IGNORED] * prompt + own[prompt:]})
        start += length
    return TokenizedSet(rows, ids, *counts)
