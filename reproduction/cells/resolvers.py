"""OmegaConf resolvers used in the YAML files of configs/.

${by_scale:{paper:128,tiny:12}}   the value for the config's model name (a rank fits a shape), else for its scale,
                                  else for its scale_like
${by_kind:{full:1,peft:2,none:3}} the value for the method's kind, "none" if the config has no method
${learning_rate:paper}            the paper's learning rate, or the method's own if the paper gives none
${learning_rate:tuned}            the word "tuned", which the cell replaces by the rate that `make tune` chose
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from reproduction.cells.config_schema import ConfigError
from reproduction.cells.tuned_rates import TUNED


def _by_scale(choices: DictConfig, *, _root_: DictConfig) -> Any:
    model = _root_.model.name if "model" in _root_ else None
    for name in filter(None, (model, _root_.scale, _root_.scale_like)):
        if name in choices:
            return choices[name]
    known = ", ".join(map(str, choices))
    raise ConfigError(f"this config has values for {known} (names of models and scales), none for scale={_root_.scale}")


def _by_kind(choices: DictConfig, *, _root_: DictConfig) -> Any:
    return choices[_root_.method.kind if "method" in _root_ else "none"]


def _learning_rate(source: str, *, _root_: DictConfig) -> float | str | None:
    if _root_.method.kind == "none":
        return None
    if source == TUNED:
        return TUNED
    return _root_.method.get("paper_learning_rate") or _root_.paper.learning_rate


def register_resolvers() -> None:
    """Register the resolvers with OmegaConf; may be called again."""
    OmegaConf.register_new_resolver("by_scale", _by_scale, replace=True)
    OmegaConf.register_new_resolver("by_kind", _by_kind, replace=True)
    OmegaConf.register_new_resolver("learning_rate", _learning_rate, replace=True)
