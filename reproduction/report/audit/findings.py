"""One row of forensics.csv."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found at one place.

    ``low`` and ``high`` bound ``quantity`` (equal where it is one number, empty where there is none) under
    ``assumption``; ``finding`` is the sentence; what stands before its colon is its kind.
    """

    check: str
    place: str
    printed: str
    assumption: str
    quantity: str
    low: str
    high: str
    finding: str

    @property
    def kind(self) -> str:
        return self.finding.split(":")[0]


COLUMNS = tuple(Finding.__annotations__)
