"""Where the tests of the kernels run, and what they draw there."""

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUTERS = ("dense", "inner_product", "uniform")

on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")


def draw(*shape, dtype=torch.float32, scale=1.0):
    """Normal numbers on the device."""
    return (scale * torch.randn(*shape, device=DEVICE)).to(dtype)
