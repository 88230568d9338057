"""Does an adapter meet the base model that it was made from?

ID-LoRA's A_i are rows of the base's W. On another base the same indices mean other rows, and the outputs would be
wrong without a sign of it. So a saved adapter carries, per module, a sketch of some of its pivot rows, and loading
compares it with the rows found at those places.

The sketch of a row is a count sketch: entries get pseudo-random signs and are summed in `BUCKETS` groups. It is
linear in the row, so the distance of two sketches estimates the distance of the rows: rounding to bf16 or fp16 moves
a row by 0.3 % at most, rounding to 4 bits by some 10 to 20 %, another base by more than 100 %.

It is a guard against mistakes, not a proof: rows outside the sketch, and layers that the adapter leaves alone, may
differ unseen.
"""

import base64
import math
import warnings
from typing import Protocol

import numpy as np
import torch

BUCKETS = 4
ROWS = 8  # per module
# Relative distances of sketches: above the first the base is another one; above the second, if the base is not
# quantised, it may be a relative (a fine-tuned or merged copy), which the rounding of 4 bits cannot be told from.
REFUSED, NOTICED = 0.35, 0.01


class PickableWeight(Protocol):
    """A weight (out, in) of any floating type that gives rows by their indices: a tensor, or one decoded when read."""

    shape: torch.Size
    device: torch.device

    def __getitem__(self, rows: torch.Tensor, /) -> torch.Tensor:
        """The rows at indices (n,), int64 and where the weight is: (n, in)."""


class BaseMismatchError(ValueError):
    """An adapter was about to be put on a base model that it was not made for."""


def take_fingerprint(weight: PickableWeight, pivots: torch.Tensor) -> str:
    """The fingerprint of a module, as text: its shape, up to `ROWS` of its pivots, and their sketches.

    weight (out, in); pivots (k, r) integers. Of every cluster the rows nearest to the centroid are used.
    """
    rows = pivots.T.flatten()[:ROWS].cpu().numpy().astype("<i4")
    sketch = _sketch(weight, rows).astype("<f4")
    out_features, in_features = weight.shape
    return f"{out_features}x{in_features} {_encode(rows)} {_encode(sketch)}"


def distance(fingerprint: str, weight: PickableWeight) -> float:
    """How far the rows of a weight (out, in) are from those in the fingerprint, relative to their length.

    Infinite where the shapes differ. Raises ValueError for a text that is no fingerprint.
    """
    try:
        shape, rows, sketch = fingerprint.split(" ")
        out_features, in_features = map(int, shape.split("x"))
        rows, saved = _decode(rows, "<i4"), _decode(sketch, "<f4")
    except ValueError as error:
        raise ValueError(f"not a fingerprint of base rows: {fingerprint!r}") from error
    if weight.shape != (out_features, in_features):
        return float("inf")
    found = _sketch(weight, rows)
    # Rows of zeros have no direction to lose: there any difference is a whole one.
    return float(np.linalg.norm(found - saved) / max(np.linalg.norm(saved), np.finfo(np.float32).tiny))


def judge(distances: dict[str, float | None], *, quantized: bool, made_for: str | None) -> None:
    """Refuse a base model, or have doubts about it, by the distances found in each module of an adapter.

    A distance is None where the weight could not be read (on the meta device, or in a format that PEFT cannot
    decode), and infinite where there is no such module, or one of another shape.

    Raises BaseMismatchError where rounding to 4 bits would not explain a distance. Warns where rounding to 16 bits
    would not and the base is not quantised, and where distances are missing.
    """
    known = {name: apart for name, apart in distances.items() if apart is not None}
    for name, apart in known.items():
        if not apart <= REFUSED:  # a NaN is refused too
            how = (
                f"its rows are {apart:.3g} of their length away" if math.isfinite(apart) else "no module of that shape"
            )
            raise BaseMismatchError(
                f"this adapter belongs to another base model: in {name} the rows that it was made from are missing "
                f"here ({how}; its own base stays within {REFUSED}, even in 4 bits). Load it on "
                + (f"{made_for!r}" if made_for else "the base model that it was trained on")
            )
    if len(known) < len(distances):
        warnings.warn(
            f"the weights of {len(distances) - len(known)} modules cannot be read, so nothing has shown that this "
            "adapter belongs to this base model",
            stacklevel=2,
        )
    if known and not quantized and max(known.values()) > NOTICED:
        name = max(known, key=known.get)
        warnings.warn(
            f"the base rows that this adapter was made from differ here by {known[name]:.1%} in {name}: is this a "
            "fine-tuned, merged or rounded copy of its base model?",
            stacklevel=2,
        )


def _sketch(weight: PickableWeight, rows: np.ndarray) -> np.ndarray:
    """Count sketches of some rows of a weight (out, in): a vector of len(rows)·BUCKETS numbers, float64."""
    picked = weight[torch.from_numpy(rows.astype(np.int64)).to(weight.device)].detach().double().cpu().numpy()
    in_features = picked.shape[1]
    # numpy keeps the stream of RandomState the same in every version, as a stored sketch needs.
    signs = np.random.RandomState(0).choice([-1.0, 1.0], size=in_features)
    groups = np.array_split(np.random.RandomState(1).permutation(in_features), BUCKETS)
    return np.concatenate([(picked * signs)[:, group].sum(axis=1) for group in groups])


def _encode(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _decode(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
