import json
from dataclasses import replace

import pytest
from cells import METHODS, run, schedule

from reproduction.commands.trials import mean_row_loss
from reproduction.data import load_rows
from reproduction.training import DataSpec, build_data, load_finished

pytestmark = pytest.mark.real_data


# An adapter between random frozen layers learns little; a whole model soon learns which bytes there are.
@pytest.mark.parametrize(("name", "learnt"), [("full", 0.5), ("idlora", 0.02)])
def test_a_small_model_learns_from_real_gsm8k_rows(name, learnt, base, tokenizer, real_data, tmp_path):
    data = DataSpec(name="gsm8k", max_length=2048, limit=32, validation_rows=8)
    training, held = build_data(data, tokenizer, root=real_data)
    answers = {row["id"]: row["answer"] for row in load_rows("gsm8k", "train", root=real_data)}
    for row, row_id in zip(training.rows, training.ids, strict=True):
        scored = [label for label in row["labels"] if label != -100]
        assert tokenizer.decode(scored).removesuffix("</s>") == answers[row_id].strip()
    assert (len(training), len(held)) == (32, 8)

    spec = schedule(max_steps=10, learning_rate=3e-2, optimizer="adamw_torch", batch_size=4, micro_batch_size=2)
    model, resources = run(tmp_path, base, METHODS[name], training, spec)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] - learnt
    assert resources.data["truncated"] == 0
    untuned, _ = load_finished(tmp_path, base, replace(METHODS["full"], kind="none"))
    before = mean_row_loss(untuned, held, batch_size=8)
    assert mean_row_loss(model, held, batch_size=8) < before - learnt
