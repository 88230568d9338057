"""Rows of a base in bitsandbytes' 4 bits."""

import torch
from bitsandbytes.nn import Linear4bit

from idlora.tuners.idlora.frozen_weight import readable_weight


def test_the_rows_are_read_alike_before_and_after_inference_packs_the_weight():
    torch.manual_seed(0)
    layer = Linear4bit(64, 128, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.load_state_dict({"weight": torch.randn(128, 64)})
    layer = layer.to("cpu").eval()
    with readable_weight(layer) as weight:
        before = weight.float().clone()
    with torch.no_grad():
        expected = layer(h := torch.randn(3, 64, dtype=torch.bfloat16))  # packs it where the CPU has AVX512-BF16
    with readable_weight(layer) as weight:
        torch.testing.assert_close(weight.float(), before, rtol=0.02, atol=0.02)
    with torch.no_grad():
        assert torch.equal(layer(h), expected), "reading changes nothing"
