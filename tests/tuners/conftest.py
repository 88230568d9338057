"""Fixtures that run a test once per method."""

import pytest
from tuner_models import EVERY_METHOD, OURS


@pytest.fixture(params=EVERY_METHOD)
def method(request):
    """The name of every method, ours and PEFT's own baselines."""
    return request.param


@pytest.fixture(params=OURS)
def our_method(request):
    """The name of every method in the registry."""
    return request.param
