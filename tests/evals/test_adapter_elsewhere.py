"""An adapter that was trained here says the same where only transformers, PEFT and `import idlora` are."""

import json
import subprocess
import sys

from oracle import TOKENIZER, small_model
from texts import said

from reproduction.data import Example, tokenize
from reproduction.training import MethodSpec, ModelSpec, TrainSpec, build_adapted, build_base, load_adapter, train

TEXTS = ["What is 2 + 2?", "Count to ten: one, two", "a"]
ELSEWHERE = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
from peft import PeftModel
import idlora

base, adapter, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(base)
ways = {
    "transformers": AutoModelForCausalLM.from_pretrained(base),
    "peft": PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter),
}
ways["transformers"].load_adapter(adapter)
said = {way: [] for way in ways}
for way, model in ways.items():
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        found = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        said[way].append(tokenizer.decode(found[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
print(json.dumps(said))
"""


def test_a_fresh_session_loads_the_adapter_either_way_and_generates_what_we_do(tmp_path):
    small_model().float().save_pretrained(tmp_path / "base")
    TOKENIZER.save_pretrained(tmp_path / "base")
    spec = ModelSpec(name="small", label="small", path_or_id=str(tmp_path / "base"))
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    method = MethodSpec(
        name="idlora", label="ID-LoRA", kind="peft", peft_type="IDLORA",
        arguments={"r": 4, "lora_alpha": 8, "num_clusters": 2, "rank_boost": 2, "target_modules": targets},
    )  # fmt: skip
    model, tokenizer = build_base(spec)
    examples = [Example(str(n), f"{n} + 1 = ", f"{n + 1}.") for n in range(16)]
    train(
        model=build_adapted(model, method, 0), tokenizer=tokenizer,
        tokenized=tokenize(examples, tokenizer, max_length=32), base=spec, folder=tmp_path / "run",
        spec=TrainSpec(learning_rate=0.5, epochs=1, max_steps=3, batch_size=8, micro_batch_size=8, optimizer="sgd"),
    )  # fmt: skip

    def answers(model) -> list[str]:
        return [text for (text,) in said(model, TEXTS, tokenizer=tokenizer, max_new_tokens=24)]

    base, _ = build_base(spec)
    plain = answers(base)
    adapter = tmp_path / "run" / "adapter"
    expected = answers(load_adapter(base, adapter, spec))
    assert expected != plain
    arguments = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "base"), str(adapter), json.dumps(TEXTS)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"transformers": expected, "peft": expected}
