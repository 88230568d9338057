"""Does an adapter meet the base model that it was made from?

ID-LoRA's A_i are rows of the base's W. On another base the same indices mean other rows, and the outputs would be
wrong without a sign of it. So a saved adapter carries a sketch of some of the pivot rows of some modules, spread evenly
over the model, and loading compares it with the rows found at those places.

The sketch of a row is a count sketch: entries get pseudo-random signs and are summed in `BUCKETS` groups. It is
linear in the row, so the distance of two sketches estimates the distance of the rows, relative to their length. The
median over the modules decides, for a coarse rounding ruins single modules: those of which a few large entries set the
scale. Measured on SmolLM2-135M-Instruct (210 modules, k = 4, r = 32), and on three Llamas of 1.6 to 1.8 M parameters
(28 modules, k = 4, r = 16; in brackets):

                                                     median of all        of single modules
    the same base, int8, a scale for each row        0.01  (0.01)         up to 0.02  (0.01)
      NF4, a scale for 64 entries                    0.10  (0.09-0.10)    up to 0.17  (0.14)
      int4, a scale for each row                     0.17  (0.12-0.13)    up to 0.53  (0.20)
      int4, one scale for the whole matrix           0.62  (0.26-0.33)    up to 1.41  (0.84)
      int2, a scale for each row (attention alone)   0.83-0.87            up to 1.44
      after 300 steps of AdamW at a rate of 1e-4           (0.03)         up to       (0.08)
      after 300 steps of AdamW at a rate of 1e-3           (0.10)         up to       (0.28)
      times two                                      1.00  (1.00)         from 1.00   (1.00)
    another base: random weights of that size        1.73  (1.50-1.77)    from 0.89   (1.03)
      its own rows, moved on by one                  1.67  (1.51-1.59)    from 1.00   (1.10)
      one trained from another start                       (1.46-1.74)    from        (1.04)

It is a guard against mistakes, not a proof: rows outside the sketches, modules without one, and layers that the adapter
leaves alone may differ unseen. Of the modules without one, those of another shape fail to load all the same.
"""

import base64
import math
import statistics
import warnings
from typing import Protocol

import numpy as np
import torch

BUCKETS = 4
ROWS = 8  # per module
MODULES = 12
"""With a sketch: some 3.3 KB of adapter_config.json. Of the 224 of LLaMA-3-8B every kind is among them."""

REFUSED, NOTICED = 0.8, 0.01
"""The base is another one if the median of the distances is above the first: between the coarsest rounding to 4 bits
and the nearest of other bases (see above). If a single one is above the second, and the base is not quantised, it may
be a relative (a fine-tuned or merged copy), which rounding cannot be told from."""


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


def sampled(names: list[str]) -> list[str]:
    """`MODULES` of the names at most, evenly spaced, the first and the last among them."""
    if len(names) <= MODULES:
        return names
    return [names[i * (len(names) - 1) // (MODULES - 1)] for i in range(MODULES)]


def judge(distances: dict[str, float | None], *, quantized: bool, made_for: str | None) -> None:
    """Refuse a base model, or have doubts about it, by the distances found in the modules that have a fingerprint.

    A distance is None where the weight could not be read (on the meta device, or in a format that PEFT cannot
    decode), and infinite where there is no such module, or one of another shape.

    Raises BaseMismatchError where a module is missing or of another shape, where a distance is no number, and where
    rounding to 4 bits would not explain the median. Warns where distances are missing, and where rounding would not
    explain a single one: to 16 bits, or to 4 if the base is quantised.
    """
    known = {name: apart for name, apart in distances.items() if apart is not None}
    own = f"Load it on {made_for!r}" if made_for else "Load it on the base model that it was trained on"
    for name, apart in known.items():
        if not math.isfinite(apart):
            found = "holds NaN here" if math.isnan(apart) else "is missing here, or has another shape"
            raise BaseMismatchError(f"this adapter belongs to another base model: {name} {found}. {own}")
    middle = statistics.median(known.values()) if known else 0.0
    if middle > REFUSED:
        raise BaseMismatchError(
            "this adapter belongs to another base model: the rows that it was made from are missing here (those at "
            f"their places are {middle:.3g} of their length away, the median of {len(known)} modules; its own base "
            f"stays within {REFUSED}, even in 4 bits). {own}"
        )
    if len(known) < len(distances):
        warnings.warn(
            f"the weights of {len(distances) - len(known)} modules cannot be read, so nothing has shown that this "
            "adapter belongs to this base model",
            stacklevel=2,
        )
    if known and max(known.values()) > (REFUSED if quantized else NOTICED):
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
