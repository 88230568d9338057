"""Training through other people's machinery: the HF Trainer with its resume, and two processes."""

import os
import subprocess
import sys

import pytest
import torch
import train_together
from peft.utils import get_peft_model_state_dict
from transformers import Trainer, TrainingArguments, set_seed
from tuner_models import OURS, excite, logits, make_adapted, make_base, make_batch


def run_trainer(method, folder, *, resume=None):
    """Six steps of the Trainer with dropout, saving after every third; optionally from a saved one on."""
    set_seed(0)
    model = make_adapted(method, lora_dropout=0.2)
    if resume:
        excite(model)  # the checkpoint has to make up for it
    rows = [{"input_ids": ids, "labels": ids} for ids in make_batch(rows=24)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=6,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        save_steps=3,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train(resume_from_checkpoint=resume)
    return model


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_trainer_resumes_to_the_same_adapter(method, tmp_path):
    whole = run_trainer(method, tmp_path)
    resumed = run_trainer(method, tmp_path, resume=str(tmp_path / "checkpoint-3"))
    expected, found = get_peft_model_state_dict(whole), get_peft_model_state_dict(resumed)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert not torch.equal(logits(whole.eval()), logits(make_base()))


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory):
    """What two processes made of every method of ours, in one launch."""
    result = tmp_path_factory.mktemp("two") / "result.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*command, train_together.__file__, str(result), *OURS], check=True, env=environment)
    return torch.load(result, weights_only=True)


def test_two_processes_train_as_one_does(our_method, trained_by_two):
    alone, together = train_together.train(our_method), trained_by_two[our_method]
    assert together["world"] == 2
    assert together["wrapper"] == "DistributedDataParallel"
    torch.testing.assert_close(together["losses"], alone["losses"])
    assert alone["losses"][0] != pytest.approx(alone["losses"][-1], rel=1e-3)
    for name, parameter in alone["parameters"].items():
        torch.testing.assert_close(together["parameters"][name], parameter.detach(), rtol=1e-9, atol=1e-12)
