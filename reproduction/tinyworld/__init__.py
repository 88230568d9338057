"""The embedded scale: a small generated world with its own tasks, and three small bases pre-trained on its plain text.

`export(root)` writes the data sets, `base_path(name)` finds a base, `verify(name)` checks it. It contains no text of
public data sets. World and bases were designed with untuned bases, full fine-tuning and LoRA only.
"""

from reproduction.tinyworld.bases import BASES, CorruptBaseError, base_path, verify
from reproduction.tinyworld.export import export

__all__ = ["BASES", "CorruptBaseError", "base_path", "export", "verify"]
