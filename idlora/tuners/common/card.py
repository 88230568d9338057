"""The model card beside a saved adapter: how to load it, its settings, the versions that saved it, the paper.

PEFT writes the README.md before the weights and the config. For an adapter whose card nobody has filled in, this part
replaces PEFT's blank form; otherwise it goes behind what is there. Saving again replaces this part alone.
"""

import dataclasses
import re
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from peft import PeftConfig

from idlora.version import __version__

BEGIN, END = "<!-- idlora: begin -->", "<!-- idlora: end -->"
ALWAYS = (
    "r",
    "lora_alpha",
    "target_modules",
    "num_clusters",
    "rank_boost",
    "num_experts",
)  # settings that are shown with their default value too
AUTO_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
"""transformers' classes by PEFT's task type; any other type has AutoModelForCausalLM."""

BODY = """{begin}
This is {article} {name} adapter of {base_link}. It was trained with the Python package `idlora`,
which adds {name} to 🤗 PEFT.

## Loading

`idlora` has no release on PyPI. Install it from a checkout of its repository: `pip install <folder of the checkout>`.

```python
import idlora  # adds {name} to PEFT
from peft import PeftModel
from transformers import {auto_class}

model = {auto_class}.from_pretrained("{base}")
model = PeftModel.from_pretrained(model, "<this folder or repository>")
```

Without `import idlora` PEFT does not know the method, and every loader (`PeftModel.from_pretrained`,
`AutoPeftModelForCausalLM`, `load_adapter` of transformers) raises `KeyError: '{peft_type}'`.
The update depends on the token, so the adapter cannot be merged into the base model's weights.

## Settings

| setting | value |
| --- | --- |
{settings}

All other settings have their defaults; `adapter_config.json` lists them.
Saved with {versions}.
{citation}{end}
"""


@dataclass(frozen=True)
class Paper:
    """The paper that describes a method."""

    title: str
    authors: tuple[str, ...]
    year: int
    arxiv: str

    def bibtex(self, key: str) -> str:
        fields = {
            "title": self.title,
            "author": " and ".join(self.authors),
            "year": self.year,
            "eprint": self.arxiv,
            "archivePrefix": "arXiv",
            "url": f"https://arxiv.org/abs/{self.arxiv}",
        }
        lines = "".join(f"  {field} = {{{value}}},\n" for field, value in fields.items())
        return f"@misc{{{key},\n{lines}}}"


def write_card(folder: Path, config: PeftConfig) -> None:
    """Write this module's part of `folder`/README.md for an adapter with this config, a `RoutedConfig`.

    Warns, and leaves the file alone, if it cannot be read as a card: transformers saves the weights after the config.
    """
    path, name = folder / "README.md", config.method_name or config.peft_type.value
    try:
        card = ModelCard.load(path) if path.exists() else ModelCard("---\nlibrary_name: peft\n---\n")
    except Exception as error:  # of its YAML, its encoding, or the disk
        warnings.warn(f"{path} gets no description of the adapter, since it is not a model card: {error}", stacklevel=2)
        return
    base = config.base_model_name_or_path
    card.data.library_name = "peft"
    of_base = [f"base_model:adapter:{base}"] if base else []
    card.data.tags = sorted({*(card.data.tags or ()), *of_base, name.lower()})
    card.data.base_model = card.data.base_model or base
    text, body = card.text.strip(), _body(config, name).strip()
    blank_form = ModelCard.from_template(ModelCardData()).text.strip()
    if written := re.search(f"{BEGIN}.*?{END}", text, re.DOTALL):
        card.text = text[: written.start()] + body + text[written.end() :]
    elif not text or text.startswith(blank_form):  # PEFT writes no card into a second adapter's folder
        card.text = f"# {name} adapter\n\n{body}\n\n{text.removeprefix(blank_form).strip()}"
    else:
        card.text = f"{text}\n\n{body}"
    card.save(path)


def _body(config: PeftConfig, name: str) -> str:
    base, paper = config.base_model_name_or_path, config.paper
    versions = {"idlora": __version__} | {name: version(name) for name in ("peft", "torch", "transformers")}
    settings = {name: _shown(value) for name, value in _settings(config).items()}
    if config.saved_parameters is not None:
        settings["trained parameters of the adapter"] = f"{config.saved_parameters:,}"
    return BODY.format(
        begin=BEGIN,
        end=END,
        article="an" if name[0] in "AEIO" else "a",
        name=name,
        base=base or "<the base model>",
        base_link=f"`{base}`" if base else "a base model without a name",
        auto_class=AUTO_CLASSES.get(config.task_type, "AutoModelForCausalLM"),
        peft_type=config.peft_type.value,
        settings="\n".join(f"| {name} | {value} |" for name, value in settings.items()),
        versions=", ".join(f"{name} {number}" for name, number in versions.items()),
        citation=f"\n## Citation\n\n```bibtex\n{paper.bibtex(name.lower())}\n```\n" if paper else "",
    )


def _settings(config: PeftConfig) -> dict[str, Any]:
    """The method's settings that a reader needs: those of `ALWAYS`, and those that differ from their default."""
    fields = [field for field in dataclasses.fields(config) if field.name not in PeftConfig.__dataclass_fields__]
    return {
        field.name: getattr(config, field.name)
        for field in fields
        if field.name in ALWAYS or (field.metadata.get("card", True) and not _is_default(config, field))
    }


def _is_default(config: PeftConfig, field: dataclasses.Field) -> bool:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return getattr(config, field.name) == default


def _shown(value: Any) -> str:
    """Return the value as a cell of a table, with escapes for the bars that would end the cell."""
    if isinstance(value, (set, list, tuple)):
        text = ", ".join(f"`{each}`" for each in (sorted(value) if isinstance(value, set) else value))
    else:
        text = str(value) if isinstance(value, (int, float)) else f"`{value}`"
    return text.replace("|", r"\|")
