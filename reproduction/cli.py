"""What every script's command line has in common: an error is one sentence and an exit code, an interrupt neither.

Whatever is printed ends on any terminal: a sign that its encoding lacks is spelt with those that it has.
"""

import codecs
import functools
import io
import os
import re
import signal
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Callable

from reproduction.training.launching import RanksFailed, delayed_errors

TRACEBACK = "IDLORA_TRACEBACK"
"""Environment variable that, when set, lets a script's error through with its traceback."""


SPELT = {
    "†": "+", "‡": "++", "—": "-", "–": "-", "−": "-", "─": "-", "×": "x", "±": "+/-", "→": "->", "←": "<-", "·": ".",
    "≤": "<=", "≥": ">=", "≈": "~", "∼": "~", "…": "...", "‖": "||", "│": "|", "§": "sec. ", "√": "sqrt ", "∈": " in ",
    "∞": "inf", "∆": "Delta", "⊗": "(x)", "⊙": "(.)", "“": '"', "”": '"', "’": "'", "‘": "'",
}  # fmt: skip
"""Signs that we print, in ASCII; those that stand for different things in a table stay apart. See `spell`."""


class NotComplete(Exception):
    """Something asked for is missing or failed; what could be shown was shown. Ends a script with exit code 1."""


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Decorate a script's body: bad input ends in one sentence and exit code 2, gaps in 1, an interrupt in 130.

    One of the runs of Hydra's -m that ends so leaves the others to go on; the whole then ends in 1, with the sentence.

    SIGTERM is treated as Ctrl-C, so that a cell at work is marked interrupted. Any other exception is a defect of
    ours and keeps its traceback, as does everything where IDLORA_TRACEBACK is set.
    """

    printable()  # now: Hydra and argparse print their help before the body runs

    @functools.wraps(function)
    def wrapped(*args: object, **kwargs: object) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        quiet()
        try:
            with delayed_errors():
                function(*args, **kwargs)
        except KeyboardInterrupt:
            _end("interrupted; the same command goes on where it stopped", 130)
        except (NotComplete, RanksFailed) as error:
            _end(str(error), 1)
        except Exception as error:
            if not shows_traceback(error):
                _end(f"error: {sentence(error)} ({TRACEBACK}=1 shows the traceback)", 2)
            if _one_of_several():
                traceback.print_exc()  # perhaps in another process, which passes on the exception without its traceback
            raise

    return wrapped


def quiet() -> None:
    """Make what is printed `printable`, and silence the warnings that nobody who runs a command can do anything about.

    For every process that works.
    """
    printable()
    # PEFT 0.21 asks transformers by a name that later releases have renamed.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
    # torch has renamed what DeepSpeed and accelerate ask of it, and warns at every call.
    for renamed in (r"`torch\.distributed\.\w+` is deprecated", "`broadcast_buffers` is deprecated"):
        warnings.filterwarnings("ignore", message=renamed, category=FutureWarning)


def printable() -> None:
    """Have standard output and error spell the signs that their encoding lacks, instead of ending the command."""
    codecs.register_error("spell", spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spell")


def spell(error: UnicodeError) -> tuple[str, int]:
    """A handler of `codecs.register_error`: `SPELT`, a Greek letter by its name, x² as x^2, and ? for any other sign.

    Raises the error itself where it is none of encoding.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spelt, error.object[error.start : error.end])), error.end


def _spelt(sign: str) -> str:
    if sign in SPELT:
        return SPELT[sign]
    how, _, of = unicodedata.decomposition(sign).partition(" ")
    if how in ("<super>", "<sub>"):
        plain = (chr(int(code, 16)) for code in of.split())
        return {"<super>": "^", "<sub>": "_"}[how] + "".join(each if each.isascii() else _spelt(each) for each in plain)
    greek = re.match(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", unicodedata.name(sign, ""))
    return "?" if greek is None else greek[2].lower() if greek[1] == "SMALL" else greek[2].capitalize()


def sentence(error: Exception) -> str:
    """What an error says; of what the operating system denied, the file, why, and the way out."""
    if isinstance(error, OSError) and error.errno and type(error).__str__ is OSError.__str__:
        place = "" if error.filename is None else f"{error.filename}: "
        return f"{place}{error.strerror}; put that right and run the same command again"
    return str(error)


def shows_traceback(error: Exception) -> bool:
    """Whether its traceback is to be shown: it is a defect of ours, or someone wants to see it."""
    return bool(os.environ.get(TRACEBACK)) or not is_input_error(error)


def is_input_error(error: Exception) -> bool:
    """Whether it is something that a user can put right, told in its own words."""
    # The packages below raise ValueError, OSError or an exception of their own for what a user can put right.
    return isinstance(error, ValueError | OSError) or type(error).__module__.split(".")[0] in ("idlora", "reproduction")


def _end(sentence: str, code: int) -> None:
    print(sentence, file=sys.stderr, flush=True)
    if code != 130 and _one_of_several():
        from hydra.errors import CompactHydraException  # Hydra tells it without a traceback, once the others are done

        raise CompactHydraException(sentence)
    raise SystemExit(code)


def _one_of_several() -> bool:
    """Whether this is one of the runs that Hydra's -m makes of a command."""
    if "hydra" not in sys.modules:
        return False
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
