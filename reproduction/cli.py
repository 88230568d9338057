"""Behaviour shared by all scripts' command lines: errors as one sentence and an exit code, interrupts, encodings."""

import codecs
import functools
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable

from reproduction.training.launching import RanksFailed, delayed_errors

TRACEBACK = "IDLORA_TRACEBACK"
"""Environment variable that, when set, makes a script's errors keep their traceback."""

ASCII = {
    "†": "+", "‡": "++", "—": "-", "–": "-", "−": "-", "─": "-", "×": "x", "±": "+/-", "→": "->", "←": "<-", "·": ".",
    "≤": "<=", "≥": ">=", "≈": "~", "∼": "~", "…": "...", "‖": "||", "│": "|", "§": "sec. ", "√": "sqrt ", "∈": " in ",
    "∞": "inf", "∆": "Delta", "⊗": "(x)", "⊙": "(.)", "“": '"', "”": '"', "’": "'", "‘": "'", "²": "^2", "³": "^3",
    "α": "alpha", "β": "beta", "λ": "lambda", "ρ": "rho", "σ": "sigma", "Δ": "Delta", "Σ": "Sigma",
}  # fmt: skip
"""Replacements of printed characters for terminals whose encoding lacks them."""


class NotComplete(Exception):
    """Part of the request is missing or failed; the rest was shown. Ends a script with exit code 1."""


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Decorate a script's body: bad input ends in one sentence and exit code 2, gaps in 1, an interrupt in 130.

    SIGTERM is treated as Ctrl-C, so that a running cell is marked interrupted. Any other exception is a defect and
    keeps its traceback, as all do if IDLORA_TRACEBACK is set.
    """
    printable()  # Hydra and argparse print their help before the body runs

    @functools.wraps(function)
    def wrapped(*args: object, **kwargs: object) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        quiet()
        try:
            with delayed_errors():
                function(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on where it stopped", file=sys.stderr, flush=True)
            raise SystemExit(130) from None
        except (NotComplete, RanksFailed) as error:
            _end(str(error), 1)
        except Exception as error:
            if shows_traceback(error):
                raise
            _end(f"error: {sentence(error)} ({TRACEBACK}=1 shows the traceback)", 2)

    return wrapped


def quiet() -> None:
    """Make output `printable` and silence library warnings that a user cannot act on."""
    printable()
    # PEFT 0.21 uses names that transformers has deprecated; DeepSpeed and accelerate use deprecated names of torch.
    for message in (".*is_gradient_checkpointing", r"`torch\.distributed\.\w+` is dep", "`broadcast_buffers` is dep"):
        warnings.filterwarnings("ignore", message=message, category=FutureWarning)


def printable() -> None:
    """Make stdout and stderr replace characters that their encoding lacks (by `ASCII`, else ?) instead of failing."""
    codecs.register_error("spell", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spell")


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(ASCII.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def sentence(error: Exception) -> str:
    """Return what an error says; for what the operating system denies, the file, the reason and the way out."""
    if isinstance(error, OSError) and error.filename and type(error).__str__ is OSError.__str__:
        return f"{error.filename}: {error.strerror}; put that right and run the same command again"
    return str(error)


def shows_traceback(error: Exception) -> bool:
    """Return whether an error is a defect of this project or `TRACEBACK` is set."""
    return bool(os.environ.get(TRACEBACK)) or not is_input_error(error)


def is_input_error(error: Exception) -> bool:
    """Return whether a user can correct an error: a ValueError, an OSError or one of the project's own classes."""
    return isinstance(error, ValueError | OSError) or type(error).__module__.split(".")[0] in ("idlora", "reproduction")


def _end(sentence: str, code: int) -> None:
    print(sentence, file=sys.stderr, flush=True)
    raise SystemExit(code)
