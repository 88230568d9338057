"""Fixtures of the embedded scale."""

from itertools import chain

import pytest

from reproduction.data.templates import RESPONSE_HEADER
from reproduction.tinyworld import corpus, law, problems, programs


@pytest.fixture(scope="session")
def corpus_sample():
    """The first documents of the pre-training corpus, with its own seed."""
    return list(corpus.documents(20_000, seed=7))


@pytest.fixture(scope="session")
def requests_and_answers(corpus_sample):
    """The corpus' instruction documents as (prompt, answer) pairs."""
    return [tuple(text.split(RESPONSE_HEADER, 1)) for text in corpus_sample if RESPONSE_HEADER in text]


@pytest.fixture(scope="session")
def forbidden_and_allowed():
    """All test items of the law: forbidden ones, and the matching allowed ones."""
    files = law.for_testing().values()
    return [item for side, _ in files for item in side], [item for _, side in files for item in side]


@pytest.fixture(scope="session")
def every_item(forbidden_and_allowed):
    """Every training and test item of the world, except chores and quizzes, whose facts are in the corpus."""
    lists = problems.for_training(), problems.for_testing(), programs.for_training(), programs.for_testing()
    refusals = [item for item in law.for_training() if item.structure in law.SEEN]
    return list(chain(*lists, refusals, *forbidden_and_allowed))
