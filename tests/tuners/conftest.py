"""Fixtures that run a test once per method."""

import pytest
from small_models import KINDS, VARIANTS
from tuner_models import EVERY_METHOD, OURS


@pytest.fixture(params=EVERY_METHOD)
def method(request):
    """The name of every method, ours and PEFT's own baselines."""
    return request.param


@pytest.fixture(params=OURS)
def our_method(request):
    """The name of every method in the registry."""
    return request.param


@pytest.fixture(params=[*OURS, "lora"])
def ours_or_lora(request):
    """The name of every method in the registry, and LoRA as the control."""
    return request.param


@pytest.fixture(params=VARIANTS)
def variant(request):
    """The name of every parameter layout of every method, and of LoRA."""
    return request.param


@pytest.fixture(params=KINDS)
def kind(request):
    """The name of every kind of small model."""
    return request.param
