"""Whether a number of ours is the one that the paper prints, and how it was cut to its digits."""

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal, InvalidOperation

ROUNDS, TRUNCATES, DIFFERS = "rounds", "truncates", "differs"
"""The paper's number is ours rounded to its digits; not rounded but cut off there; neither."""

UNITS = {"K": 10**3, "M": 10**6, "B": 10**9}


def agreement(value: int | float, printed: str) -> str:
    """How the paper's ``printed`` number ("83.9M", "0.56", "100") comes from ours: `ROUNDS`, `TRUNCATES` or `DIFFERS`.

    Halves round up. Raises ValueError for text that is no number.
    """
    unit = UNITS.get(printed[-1:], 1)
    try:
        shown = Decimal(printed if unit == 1 else printed[:-1])
    except InvalidOperation:
        raise ValueError(f"{printed!r} is no number: digits, and one of {', '.join(UNITS)} behind them") from None
    last_digit = Decimal(1).scaleb(shown.as_tuple().exponent)
    exact = Decimal(str(value)) / unit
    for how, rounding in ((ROUNDS, ROUND_HALF_UP), (TRUNCATES, ROUND_DOWN)):
        if exact.quantize(last_digit, rounding) == shown:
            return how
    return DIFFERS
