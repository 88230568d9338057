"""Fine-tune a language model with ID-LoRA and TRL's SFTTrainer: ID-LoRA is its `peft_config`.

    pip install trl
    python examples/sft_trainer.py  # SmolLM2-135M-Instruct from the Hub
    python examples/sft_trainer.py --model reproduction/tinyworld/bases/pebble  # no download

`--data` takes JSON Lines with a "prompt" and a "completion" in each row. The loss is over the completions.
"""

import argparse
import json
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from trl import SFTConfig, SFTTrainer

from idlora import IdLoraConfig  # importing idlora adds ID-LoRA to PEFT


def main(argv: list[str] | None = None) -> PeftModel:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="id on the Hub, or folder")
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "sums.jsonl")
    parser.add_argument("--output", default="outputs/sft_trainer", help="folder for the adapter")
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args(argv)

    rows = [json.loads(line) for line in args.data.read_text(encoding="utf-8").splitlines()]
    trainer = SFTTrainer(
        model=args.model,
        args=SFTConfig(
            output_dir=args.output,
            max_steps=args.steps,
            per_device_train_batch_size=8,
            learning_rate=1.6e-3,  # the best of a search on the default model, with other data
            bf16=torch.cuda.is_available(),  # TRL's default, which needs a GPU
            logging_steps=10,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=IdLoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.model.print_trainable_parameters()
    trainer.train()
    trainer.save_model(args.output)  # the adapter, the tokenizer, and a README.md that says how to load them
    return trainer.model


if __name__ == "__main__":
    main()
