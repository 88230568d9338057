"""lm-eval's filters and metrics, applied to stored answers."""

from typing import Any


def first_match(text: str, pattern: str, *, group_select: int = 0) -> str:
    """Apply lm-eval's regex filter: return match number `group_select`, or "[invalid]" if there is none."""
    from lm_eval.filters.extraction import RegexFilter  # takes a second to import

    return RegexFilter(regex_pattern=pattern, group_select=group_select).apply([[text]], [{}])[0][0]


def exact_match(reading: str, gold: str, **options: Any) -> float:
    """Return lm-eval's exact_match, 1 or 0, with its options (regexes_to_ignore, ignore_case …)."""
    from lm_eval.api.metrics import exact_match_fn

    return float(exact_match_fn(predictions=[reading], references=[gold], **options)["exact_match"])
