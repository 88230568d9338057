"""What an evaluation took, and what it came to beside its scores; told to a person, and compared with nothing.

Each batch's cost is recorded with its first answer, so that what was interrupted, gone on with and shared by several
processes adds up to what was done.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reproduction.evals.items import Prompt
from reproduction.evals.task import Protocol

COST = "cost"
"""A batch's first answer has what the batch took under this key."""

SUMMED = ("prompt_tokens", "generated_tokens", "prefill_seconds", "decode_seconds")


def cost(
    *, prompt_tokens: int, prefill_seconds: float, generated_tokens: int = 0, decode_seconds: float = 0.0
) -> dict[str, Any]:
    """What a batch took: tokens read and decoded, seconds of each, and the most memory of the process on a GPU."""
    import torch

    return {
        "prompt_tokens": prompt_tokens,
        "generated_tokens": generated_tokens,
        "prefill_seconds": round(prefill_seconds, 4),
        "decode_seconds": round(decode_seconds, 4),
        "gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
    }


def throughput(answers: Iterable[Mapping[str, Any]], prompts: Sequence[Prompt], protocol: Protocol) -> dict[str, Any]:
    """throughput.json, from all raw answers.

    prompt_tokens, generated_tokens, prefill_seconds, decode_seconds: sums over all batches, whichever process answered
    them: with n processes the clock on the wall saw about an n-th of the seconds. tokens_per_second is of one process:
    tokens generated, or read where nothing is generated, in a second. gpu_bytes is the most that a process needed.
    empty: answers without a sign in them. shortened: prompts in which not all worked examples fitted.
    """
    answers = list(answers)
    costs = [answer[COST] for answer in answers if COST in answer]
    sums = {name: round(sum(each[name] for each in costs), 4) for name in SUMMED}
    generated = protocol.scoring == "generated"
    seconds = sums["prefill_seconds"] + sums["decode_seconds"]
    tokens = sums["generated_tokens" if generated else "prompt_tokens"]
    return sums | {
        "answers": len(answers),
        "empty": sum(not answer["raw"].strip() for answer in answers) if generated else 0,
        "shortened": sum(prompt.shots is not None and prompt.shots < protocol.num_fewshot for prompt in prompts),
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "gpu_bytes": max((each["gpu_bytes"] for each in costs), default=0),
    }
