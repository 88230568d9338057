"""Fine-tune a base model in 4 bits with ID-LoRA, as QLoRA does with LoRA.

bitsandbytes holds the weights of the base; the adapter is in full precision, its pivots are rows of the 4-bit weights.

    pip install trl bitsandbytes
    python examples/quantized.py  # SmolLM2-135M-Instruct from the Hub
    python examples/quantized.py --model reproduction/tinyworld/bases/pebble  # no download

The adapter also loads on the same base in 16 bits; a warning then says how far the rows of W differ from the 4 bits'.
"""

import argparse
import json
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from idlora import IdLoraConfig  # importing idlora adds ID-LoRA to PEFT


def main(argv: list[str] | None = None) -> PeftModel:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="id on the Hub, or folder")
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "sums.jsonl")
    parser.add_argument("--output", default="outputs/quantized", help="folder for the adapter")
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args(argv)

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(args.model, quantization_config=four_bits)
    print(f"base model in 4 bits: {model.get_memory_footprint() / 2**20:,.1f} MiB")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = [json.loads(line) for line in args.data.read_text(encoding="utf-8").splitlines()]
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        args=SFTConfig(
            output_dir=args.output,
            max_steps=args.steps,
            per_device_train_batch_size=8,
            learning_rate=1.6e-3,  # the best of a search on the default model in 16 bits, with other data
            bf16=torch.cuda.is_available(),  # TRL's default, which needs a GPU
            logging_steps=10,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=IdLoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(args.output)

    prompt = tokenizer(rows[0]["prompt"], return_tensors="pt")
    for name, settings in {"4 bits": {"quantization_config": four_bits}, "16 bits": {"dtype": torch.bfloat16}}.items():
        base = AutoModelForCausalLM.from_pretrained(args.model, **settings)
        loaded = PeftModel.from_pretrained(base, args.output)
        answer = loaded.generate(**prompt.to(loaded.device), max_new_tokens=8, do_sample=False)
        print(f"on the base in {name}: {tokenizer.decode(answer[0], skip_special_tokens=True)}")
    return trainer.model


if __name__ == "__main__":
    main()
