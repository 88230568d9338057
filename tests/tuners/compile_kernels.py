"""Compile every kernel for Ampere and Hopper at LLaMA-3-8B's sizes. No GPU is needed."""

import itertools
import os

os.environ.pop("TRITON_INTERPRET", None)  # an interpreted function cannot be compiled

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from idlora.tuners.idlora.kernels import mixing, routing

HALF, FLOAT, INDEX, KEPT = "*bf16", "*fp32", "*i32", "*i1"
SIZES = {"N": 4096, "K": 4, "R": 128, "CLUSTERS": 4, "RANK": 128}
TYPES = {
    "base": HALF, "x_apart": HALF, "bias": HALF, "B": FLOAT, "route": FLOAT, "mask": KEPT, "pivots": INDEX,
    "order": INDEX, "out": HALF, "x": HALF, "alpha": FLOAT, "z": HALF, "scale": "fp32", "M": "i32", "ROWS": "i32",
    "dbase": HALF, "dz": HALF, "T": FLOAT, "droute": FLOAT, "dT": FLOAT, "h": HALF, "logits": FLOAT, "dlogits": FLOAT,
    "dh": HALF, "STEPS": "i32",
}  # fmt: skip


def build(kernel, capability: int, **constants) -> None:
    signature = {name: "constexpr" if name in constants else TYPES[name] for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    triton.compile(
        ASTSource(fn=kernel, signature=signature, constexprs=places), target=GPUTarget("cuda", capability, 32)
    )


for capability, router in itertools.product((80, 90), ("dense", "inner_product")):
    apart = (capability == 80) == (router == "dense")
    flags = {"ROUTER": router, "HAS_MASK": True, "APART": apart}
    build(mixing.mix_kernel, capability, **SIZES, **flags, HAS_BIAS=True, SAVES=True, BLOCK_M=1, SLOTS=512)
    build(mixing.unmix_kernel, capability, **SIZES, **flags, BLOCK_M=1, SLOTS=512)
    build(
        mixing.few_tokens_kernel, capability, **SIZES, S=2, ROUTER=router, HAS_BIAS=True, OVERLAPS=capability == 90,
        APART=apart, BLOCK_N=64, CHUNK=64,
    )  # fmt: skip
for capability in (80, 90):
    tiles = {"IN": 4096, "K": 4, "PRECISION": "tf32", "TWO": True, "BLOCK_IN": 128, "CLUSTERS": 16}
    build(mixing.apply_kernel, capability, NS=2048, RS=64, PRECISION="tf32", BLOCK_M=64, BLOCK_N=128, CHUNK=64)
    build(routing.logits_kernel, capability, **tiles, BLOCK_M=32)
    build(routing.logits_backward_kernel, capability, **tiles, WITH_DH=True, BLOCK_M=64)
    build(routing.few_logits_kernel, capability, IN=14336, K=4, BLOCK_IN=4096)
print("compiled")
