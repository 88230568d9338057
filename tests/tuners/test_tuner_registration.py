"""What `import idlora` does."""

import importlib
import subprocess
import sys
import textwrap

import pytest
from peft import LoraConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import LoraModel

import idlora
from idlora.tuners import REGISTRY
from idlora.tuners.registry import add_peft_type, register


def run_python(code):
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_importing_the_package_registers_every_method():
    assert set(REGISTRY) == {"idlora", "hydralora", "moelora"}
    for name, method in REGISTRY.items():
        assert PEFT_TYPE_TO_CONFIG_MAPPING[method.peft_type] is method.config_cls
        assert PEFT_TYPE_TO_TUNER_MAPPING[method.peft_type] is method.model_cls
        assert PEFT_TYPE_TO_PREFIX_MAPPING[method.peft_type] == f"{name}_"
    assert idlora.IdLoraConfig is REGISTRY["idlora"].config_cls
    assert idlora.HydraLoraConfig is REGISTRY["hydralora"].config_cls


def test_registering_again_changes_nothing(our_method):
    method = REGISTRY[our_method]
    members = list(PeftType)
    assert register(our_method, method.config_cls, method.model_cls) == method
    importlib.reload(idlora)
    assert list(PeftType) == members
    assert REGISTRY[our_method] == method


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(KeyError, match="already PEFT method called 'idlora'"):
        register("idlora", LoraConfig, LoraModel)
    assert PEFT_TYPE_TO_CONFIG_MAPPING[PeftType("IDLORA")] is idlora.IdLoraConfig


def test_a_type_that_exists_is_given_back():
    assert add_peft_type("LORA") is PeftType.LORA


def test_the_library_of_the_paper_is_imported_only_by_who_chooses_it():
    run_python("""
        import sys
        sys.modules["k_means_constrained"] = None  # as if it were not installed
        import torch, idlora
        weight = torch.randn(12, 3)
        idlora.select_pivots(weight, 2, 3)
        try:
            idlora.select_pivots(weight, 2, 3, backend="k_means_constrained")
        except ValueError as error:
            assert "needs the package k-means-constrained" in str(error) and "take 'torch'" in str(error), error
        else:
            raise AssertionError("it is not installed")
        del sys.modules["k_means_constrained"]
        idlora.select_pivots(weight, 2, 3, backend="k_means_constrained")
        assert "k_means_constrained" in sys.modules
    """)
