"""Two ID-LoRA adapters on one base model: train each on its task, switch, mix them in one batch, save and load them.

    python examples/several_adapters.py  # SmolLM2-135M-Instruct from the Hub
    python examples/several_adapters.py --model reproduction/tinyworld/bases/pebble  # no download

All adapters of one PeftModel are of one method; a LoRA beside them is refused by PEFT.
"""

import argparse

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BatchEncoding

from idlora import IdLoraConfig  # importing idlora adds ID-LoRA to PEFT

WORDS = ("table", "river", "stone", "paper", "green", "seven", "cloud", "bread")
TASKS = {
    "sums": [f"{a} and {10 - a} are ten" for a in range(1, 9)],
    "spelling": [f"{word} is spelt {' '.join(word)}" for word in WORDS],
}


def loss_of(model: PeftModel, batch: BatchEncoding) -> torch.Tensor:
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return model(**batch, labels=labels).loss


def main(argv: list[str] | None = None) -> PeftModel:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="id on the Hub, or folder")
    parser.add_argument("--output", default="outputs/several_adapters", help="folder for the adapters")
    parser.add_argument("--steps", type=int, default=30, help="for each adapter")
    args = parser.parse_args(argv)

    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(args.model, device_map="auto")

    def encode(rows: list[str]) -> BatchEncoding:
        return tokenizer(rows, padding=True, return_tensors="pt").to(model.device)

    batches = {name: encode(rows) for name, rows in TASKS.items()}
    configs = {  # one for each adapter, and they may differ
        "sums": IdLoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        "spelling": IdLoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    }
    model = get_peft_model(model, configs["sums"], adapter_name="sums")
    model.add_adapter("spelling", configs["spelling"])

    for name, batch in batches.items():
        model.set_adapter(name)  # this adapter is active, and it alone trains
        optimizer = torch.optim.AdamW((each for each in model.parameters() if each.requires_grad), lr=3e-3)
        for _ in range(args.steps):
            loss_of(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(args.output)  # <output>/sums and <output>/spelling

    base = AutoModelForCausalLM.from_pretrained(args.model, device_map="auto")
    loaded = PeftModel.from_pretrained(base, f"{args.output}/sums", adapter_name="sums")
    loaded.load_adapter(f"{args.output}/spelling", adapter_name="spelling")
    with torch.no_grad():
        for name in configs:
            loaded.set_adapter(name)
            print(f"{name}:", *(f"loss on {task} {loss_of(loaded, batch):.3f}" for task, batch in batches.items()))
        with loaded.disable_adapter():
            print("base:", *(f"loss on {task} {loss_of(loaded, batch):.3f}" for task, batch in batches.items()))

    rows = ["3 and", "river is", "river is"]  # one batch, an adapter for each row
    answers = loaded.generate(**encode(rows), adapter_names=["sums", "spelling", "__base__"], max_new_tokens=12)
    print(*map(repr, tokenizer.batch_decode(answers, skip_special_tokens=True)), sep="\n")
    loaded.delete_adapter("sums")
    print("left:", *loaded.peft_config)
    return loaded


if __name__ == "__main__":
    main()
