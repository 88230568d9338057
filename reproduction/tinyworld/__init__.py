"""The embedded scale: a small generated world with its own tasks, and three small bases pre-trained on its plain text.

`export(root)` writes the data sets, `base_path(name)` finds a base, `verify(name)` checks it. No public data set's
text is in it. World and bases were settled on the untuned bases, full fine-tuning and LoRA alone.
"""

from reproduction.tinyworld.bases import BASES, CorruptBaseError, base_path, verify
from reproduction.tinyworld.export import export

__all__ = ["BASES", "CorruptBaseError", "base_path", "export", "verify"]
