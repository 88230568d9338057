"""Print, as Markdown, how many rows of each data set a length limit cuts for each tokenizer.

python scripts/truncation.py
python scripts/truncation.py data_root=<folder> 'tokenizers=[<folder>]' max_length=1024
python scripts/truncation.py 'datasets=[gsm8k]' split=test max_new_tokens=256
"""

from pathlib import Path

from reproduction.cells.resolve_paths import locate_data, locate_revisions
from reproduction.commands.script import hydra_command
from reproduction.data import load_rows, to_examples
from reproduction.data.lengths import markdown, measure


@hydra_command("truncation")
def main(config):
    from reproduction.training import ModelSpec, build_tokenizer  # imports torch, which --help does not need

    root = locate_data(config.data_root, scale=config.scale, results_dir=config.results_dir)
    limits = {key: config[key] for key in ("max_length", "max_new_tokens")}
    found = {}
    for name in config.datasets:
        rows = load_rows(name, config.split, root=root, revisions=locate_revisions(config.revisions))
        for place in config.tokenizers:
            short = Path(place).name
            tokenizer = build_tokenizer(ModelSpec(name=short, label=short, path_or_id=place))
            found[name, short] = measure(to_examples(name, rows), tokenizer, **limits)
    print("\n".join(markdown(found, **limits)))


if __name__ == "__main__":
    main()
