"""Fine-tune a language model with ID-LoRA and the Trainer of transformers, save the adapter, and load it again.

    python examples/trainer.py  # SmolLM2-135M-Instruct from the Hub
    python examples/trainer.py --model reproduction/tinyworld/bases/pebble  # no download

`--data` takes JSON Lines with a "prompt" and a "completion" in each row. The loss is over the completions.
"""

import argparse
import json
from pathlib import Path

from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from idlora import IdLoraConfig  # importing idlora adds ID-LoRA to PEFT


def main(argv: list[str] | None = None) -> PeftModel:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="id on the Hub, or folder")
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "sums.jsonl")
    parser.add_argument("--output", default="outputs/trainer", help="folder for the adapter")
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args(argv)

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model)
    config = IdLoraConfig(r=16, lora_alpha=32, num_clusters=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)  # selects the pivots, the rows of W that serve as A
    model.print_trainable_parameters()

    def tokenize(row: dict[str, str]) -> dict[str, list[int]]:
        prompt = tokenizer(row["prompt"])["input_ids"]
        completion = tokenizer(row["completion"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}

    rows = [json.loads(line) for line in args.data.read_text(encoding="utf-8").splitlines()]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=args.output,
            max_steps=args.steps,
            per_device_train_batch_size=8,
            learning_rate=1.6e-3,  # the best of a search on the default model, with other data
            logging_steps=10,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=[tokenize(row) for row in rows],
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    trainer.train()
    model.save_pretrained(args.output)  # its README.md says how to load it

    base = AutoModelForCausalLM.from_pretrained(args.model)
    loaded = PeftModel.from_pretrained(base, args.output).to(model.device)
    prompt = tokenizer(rows[0]["prompt"], return_tensors="pt").to(loaded.device)
    answer = loaded.generate(**prompt, max_new_tokens=8, do_sample=False)
    print(tokenizer.decode(answer[0], skip_special_tokens=True))  # so few steps teach the form, not how to add
    return model


if __name__ == "__main__":
    main()
