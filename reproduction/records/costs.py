"""The key of benchmark.csv's rows and the states that they end in."""

from reproduction.records.status import DONE, FAILED, OOM

SETTING = ("scenario", "layers", "batch", "length")
"""The key of a scenario: one name may be measured at several sizes."""

KEY = (*SETTING, "variant")
"""The key of a row: measured again, a row replaces the older one."""

BUSY = "busy"
"""Measured, but the machine was busy or the numbers spread."""

STATUSES = (DONE, BUSY, OOM, FAILED)
"""The states of a row; only done ones are reported."""
