"""What tells rows of benchmark.csv apart and the states they end in: for what writes the file and what reads it."""

from reproduction.records.status import DONE, FAILED, OOM

SETTING = ("scenario", "layers", "batch", "length")
"""What tells scenarios apart: one name may be measured at several sizes."""

KEY = (*SETTING, "variant")
"""What tells rows apart: measured again, a row takes the place of the older one."""

BUSY = "busy"
"""Measured, but the machine was busy or the numbers spread."""

STATUSES = (DONE, BUSY, OOM, FAILED)
"""The states of a row; nothing but a done one is reported."""
