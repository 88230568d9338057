"""lm-eval's filters and metrics on stored answers: it reads and scores, and neither prompts nor decodes."""

from typing import Any


def first_match(text: str, pattern: str, *, group_select: int = 0) -> str:
    """What lm-eval's regex filter reads in an answer: the match of that number, "[invalid]" where there is none."""
    from lm_eval.filters.extraction import RegexFilter  # with lm-eval a second: only where something is scored

    return RegexFilter(regex_pattern=pattern, group_select=group_select).apply([[text]], [{}])[0][0]


def exact_match(reading: str, gold: str, **options: Any) -> float:
    """lm-eval's metric of that name with its options (regexes_to_ignore, ignore_case …): 1 or 0."""
    from lm_eval.api.metrics import exact_match_fn

    return float(exact_match_fn(predictions=[reading], references=[gold], **options)["exact_match"])
