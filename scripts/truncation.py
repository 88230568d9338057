"""Print how many rows of each data set a limit on length cuts, for each tokenizer.

python scripts/truncation.py
python scripts/truncation.py data_root=<folder> 'tokenizers=[<folder>,<folder>]' max_length=1024
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from reproduction.cells.compose import plain
from reproduction.cells.resolve_paths import locate_data, locate_revisions
from reproduction.cells.resolvers import register_resolvers
from reproduction.cli import command
from reproduction.data import load_rows, to_examples
from reproduction.data.lengths import markdown, measure
from reproduction.training import ModelSpec, build_tokenizer


@hydra.main(version_base="1.3", config_path="../configs", config_name="truncation")
@command
def main(config: DictConfig) -> None:
    values = plain(config)
    root = locate_data(values["data_root"], scale=values["scale"], results_dir=values["results_dir"])
    limits = {key: values[key] for key in ("max_length", "max_new_tokens")}
    found = {}
    for name in values["datasets"]:
        rows = load_rows(name, values["split"], root=root, revisions=locate_revisions(values["revisions"]))
        for place in values["tokenizers"]:
            short = Path(place).name
            tokenizer = build_tokenizer(ModelSpec(name=short, label=short, path_or_id=place))
            found[name, short] = measure(to_examples(name, rows), tokenizer, **limits)
    print("\n".join(markdown(found, **limits)))


if __name__ == "__main__":
    register_resolvers()
    main()
