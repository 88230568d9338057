"""Fixtures: a small benchmark plan on the CPU that ignores the machine's other load."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from small import MODEL, PATIENT, REFERENCE, scenario

from reproduction.benchmark import idle_check
from reproduction.benchmark.spec import Group, Plan, Scenario, Variant


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the readings of the machine, which other tests cover."""
    monkeypatch.setattr(idle_check, "LOOK", 0.1)
    monkeypatch.setattr(idle_check, "PATIENCE", 0.2)


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """Return plan(adapter(), scenarios=…, limits=…), a plan of the reference and these variants in one group."""

    def make(*variants: Variant, scenarios: tuple[Scenario, ...] | None = None, **changes: Any) -> Plan:
        group = Group(scenarios=scenarios or (scenario(),), variants=(REFERENCE, *variants))
        made = Plan(model=MODEL, groups=(group,), device="cpu", limits=PATIENT)
        return dataclasses.replace(made, **changes)

    return make
