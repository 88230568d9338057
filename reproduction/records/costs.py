"""Key columns and final states of the rows of benchmark.csv."""

from reproduction.records.status import DONE, FAILED, OOM

SETTING = ("scenario", "layers", "batch", "length")
"""Key of a scenario; one scenario may be measured at several sizes."""

KEY = (*SETTING, "variant")
"""Key of a row; a new measurement replaces the older row with the same key."""

BUSY = "busy"
"""State of a row measured on a busy machine or with widely spread numbers."""

STATUSES = (DONE, BUSY, OOM, FAILED)
"""States of a row; only done rows are reported."""
