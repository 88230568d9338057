"""Methods in other libraries: generation, transformers' own calls, the Trainer with resuming, DDP."""

import forks
import pytest
import torch
import train_together
from peft import PeftModel, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from transformers import Trainer, TrainingArguments, set_seed
from tuner_models import (
    OURS,
    excite,
    logits,
    make_adapted,
    make_base,
    make_batch,
    make_config,
    save,
)

every_method = pytest.mark.parametrize("method", OURS)


@every_method
def test_generation_follows_the_adapter(method):
    model, ids = excite(make_adapted(method), size=1.0), make_batch()
    greedy = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    expected = ids
    for _ in range(3):
        expected = torch.cat([expected, logits(model, expected)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(model.generate(ids, attention_mask=torch.ones_like(ids), **greedy), expected)
    with model.disable_adapter():
        assert not torch.equal(model.generate(ids, **greedy), expected)


@pytest.mark.filterwarnings("ignore:Adapter .* was active which is now deleted")
@every_method
def test_transformers_own_calls_add_switch_and_delete_as_well(method, tmp_path):
    expected = logits(excite(make_adapted(method)))
    folder = save(excite(make_adapted(method)), tmp_path / "peft")
    base = make_base()
    base.load_adapter(folder, adapter_name="loaded")
    assert torch.equal(logits(base), expected)
    base.add_adapter(make_config(method), "added")
    assert torch.equal(logits(base), logits(make_base()))
    base.set_adapter("loaded")
    base.save_pretrained(str(tmp_path / "native"))
    assert torch.equal(logits(PeftModel.from_pretrained(make_base(), str(tmp_path / "native"))), expected)
    base.disable_adapters()
    assert torch.equal(logits(base), logits(make_base()))
    base.enable_adapters()
    base.delete_adapter("added")
    assert torch.equal(logits(base), expected)


@pytest.mark.parametrize("name", ["1", "q_proj", "weight"])
def test_an_adapter_is_not_called_as_a_part_of_the_model_is(name):
    model = make_adapted("idlora")
    with pytest.raises(ValueError, match=f"'{name}' cannot be an adapter's name"):
        model.add_adapter(name, make_config("idlora"))
    assert set(model.peft_config) == {"default"}
    model.add_adapter("second", make_config("idlora"))


@every_method
def test_adapters_are_injected_without_a_wrapper_and_loaded_from_what_they_give(method):
    injected = excite(inject_adapter_in_model(make_config(method), make_base())).eval()
    state = get_peft_model_state_dict(injected)
    for settings in ({}, {"low_cpu_mem_usage": True}):
        fresh = inject_adapter_in_model(make_config(method), make_base(), **settings).eval()
        assert any(parameter.is_meta for parameter in fresh.parameters()) == bool(settings)
        assert set_peft_model_state_dict(fresh, state, **settings).unexpected_keys == []
        assert torch.equal(logits(fresh), logits(injected))


def run_trainer(method, folder, *, resume=None):
    """Run four steps of the Trainer with dropout, saving after every second step; optionally resume."""
    set_seed(0)
    model = make_adapted(method, lora_dropout=0.2)
    if resume:
        excite(model)  # the checkpoint must undo this
    rows = [{"input_ids": ids, "labels": ids} for ids in make_batch(rows=16)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        save_steps=2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    Trainer(model=model, args=arguments, train_dataset=rows).train(resume_from_checkpoint=resume)
    return model


@pytest.mark.filterwarnings("ignore::UserWarning")
@every_method
def test_the_trainer_resumes_to_the_same_adapter(method, tmp_path):
    whole = run_trainer(method, tmp_path)
    resumed = run_trainer(method, tmp_path, resume=str(tmp_path / "checkpoint-2"))
    expected, found = get_peft_model_state_dict(whole), get_peft_model_state_dict(resumed)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert not torch.equal(logits(whole.eval()), logits(make_base()))


def test_two_processes_train_as_one_does(tmp_path):
    forks.together(train_together.train_all, list(OURS), tmp_path / "result.pt", folder=tmp_path)
    trained_by_two = torch.load(tmp_path / "result.pt", weights_only=True)
    for method in OURS:
        alone, together = train_together.train(method), trained_by_two[method]
        assert together["world"] == 2
        assert together["wrapper"] == "DistributedDataParallel"
        torch.testing.assert_close(together["losses"], alone["losses"])
        assert alone["losses"][0] != pytest.approx(alone["losses"][-1], rel=1e-3)
        for name, parameter in alone["parameters"].items():
            torch.testing.assert_close(together["parameters"][name], parameter.detach(), rtol=1e-9, atol=1e-12)
