"""Pre-train the bases of the tiny scale. The defaults of this script made the shipped ones."""

import argparse
from pathlib import Path

from reproduction.cli import command
from reproduction.tinyworld.bases import BASES


@command
def main() -> None:
    """Build the tokenizer and the corpus once, then train each base."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "bases", nargs="*", metavar="base", help=f"bases to train, out of {', '.join(BASES)}; all if none is named"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to hold one folder per base")
    parser.add_argument("--device", help="device to train on; a GPU where there is one")
    for option, kind in (("documents", int), ("steps", int), ("batch-size", int), ("learning-rate", float)):
        parser.add_argument(f"--{option}", type=kind, help="instead of the recipe's value")
    options = parser.parse_args()
    unknown = sorted(set(options.bases) - set(BASES))
    if unknown:
        parser.error(f"no base is called {', '.join(unknown)}: choose out of {', '.join(BASES)}")

    import torch  # --help does not need it

    from reproduction.tinyworld.pretrain import RECIPES, encode_corpus, make_base
    from reproduction.tinyworld.tokenizer import build_tokenizer

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    changes = {key: getattr(options, key) for key in ("documents", "steps", "batch_size", "learning_rate")}
    recipes = [RECIPES[name].changed(**changes) for name in options.bases or BASES]
    tokenizer = build_tokenizer()
    blocks = encode_corpus(tokenizer, recipes[0]).to(device)
    print(f"{blocks.numel() / 1e6:.1f}M tokens in blocks of {blocks.shape[1]}", flush=True)
    for recipe in recipes:
        make_base(
            options.output / recipe.base, tokenizer, blocks, recipe=recipe, log=lambda line: print(line, flush=True)
        )


if __name__ == "__main__":
    main()
