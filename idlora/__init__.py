"""ID-LoRA, HydraLoRA and MoELoRA as PEFT methods.

`import idlora` registers the methods with PEFT, so that `get_peft_model`, `PeftModel.from_pretrained` and
transformers' `load_adapter` know them.
"""

from idlora.tuners import HydraLoraConfig, IdLoraConfig, MoeLoraConfig, select_pivots
from idlora.version import __version__

__all__ = ["HydraLoraConfig", "IdLoraConfig", "MoeLoraConfig", "__version__", "select_pivots"]
