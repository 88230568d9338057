"""Does an adapter meet the base model that it was made from?

ID-LoRA's A_i are rows of the base's W, and on another base the same indices mean other rows. So a saved adapter carries
a sketch of some pivot rows of some modules, spread evenly over the model, and loading compares it with the rows found
at those places. The sketch of a row is a count sketch: entries get pseudo-random signs and are summed in `BUCKETS`
groups. It is linear in the row, so the distance of two sketches estimates the distance of the rows, relative to their
length. The median over the modules decides, since a coarse rounding ruins single modules. Measured medians on
SmolLM2-135M-Instruct (210 modules, k = 4, r = 32):

    the same base in int8                              0.01
    in NF4; in int4, a scale for each row              0.10; 0.17
    in int4, one scale for the whole matrix            0.62
    times two                                          1.00
    random weights of that size; rows moved on by one  1.73; 1.67

It guards against mistakes and proves nothing: rows and modules without a sketch may differ unseen.
"""

import base64
import math
import statistics
import warnings

import numpy as np
import torch

BUCKETS = 4
ROWS = 8  # per module
MODULES = 12
"""With a sketch: some 3.3 KB of adapter_config.json. Of the 224 of LLaMA-3-8B every kind is among them."""

REFUSED = 0.8
"""A median distance above this is another base: between the coarsest rounding and the nearest of other bases."""

NOTICED = 0.01
"""A single distance above this, where the base is not quantised, may be a fine-tuned or merged copy."""


class BaseMismatchError(ValueError):
    """An adapter was about to be put on a base model that it was not made for."""


def take_fingerprint(weight: torch.Tensor, pivots: torch.Tensor) -> str:
    """The fingerprint of a module, as text: its shape, up to `ROWS` of its pivots, and their sketches.

    weight (out, in); pivots (k, r) integers. Of every cluster the rows nearest to the centroid are used.
    """
    rows = pivots.T.flatten()[:ROWS].cpu().numpy().astype("<i4")
    sketch = _sketch(weight, rows).astype("<f4")
    out_features, in_features = weight.shape
    return f"{out_features}x{in_features} {_encode(rows)} {_encode(sketch)}"


def distance(fingerprint: str, weight: torch.Tensor) -> float:
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
    # Rows of zeros have no length: there any difference is large.
    return float(np.linalg.norm(_sketch(weight, rows) - saved) / max(np.linalg.norm(saved), np.finfo(np.float32).tiny))


def sampled(names: list[str]) -> list[str]:
    """`MODULES` of the names at most, evenly spaced, the first and the last among them."""
    if len(names) <= MODULES:
        return names
    return [names[i * (len(names) - 1) // (MODULES - 1)] for i in range(MODULES)]


def check_distances(distances: dict[str, float | None], *, quantized: bool, made_for: str | None) -> None:
    """Refuse a base model, or warn of it, by the distances found in the modules that have a fingerprint.

    A distance is None where the weight could not be read (on the meta device, or in a format that PEFT cannot
    decode), and infinite where there is no such module, or one of another shape.

    Raises BaseMismatchError where a module is missing or of another shape, where a distance is no number, and where
    rounding to 4 bits would not explain the median. Warns where distances are missing, and where rounding would not
    explain a single one: to 16 bits, or to 4 if the base is quantised.
    """
    known = {name: apart for name, apart in distances.items() if apart is not None}
    refusal = "this adapter belongs to another base model: {}. Load it on " + (made_for or "the one it was trained on")
    for name, apart in known.items():
        if not math.isfinite(apart):
            found = "holds NaN here" if math.isnan(apart) else "is missing here, or has another shape"
            raise BaseMismatchError(refusal.format(f"{name} {found}"))
    median = statistics.median(known.values()) if known else 0.0
    if median > REFUSED:
        raise BaseMismatchError(
            refusal.format(
                f"the rows it was made from differ here by {median:.3g} of their length, the median of {len(known)} "
                f"modules; its own base stays within {REFUSED}, even in 4 bits"
            )
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


def _sketch(weight: torch.Tensor, rows: np.ndarray) -> np.ndarray:
    """Count sketches of some rows of a weight (out, in): a vector of len(rows)·BUCKETS numbers, float64."""
    picked = weight[torch.from_numpy(rows.astype(np.int64)).to(weight.device)].detach().double().cpu().numpy()
    # numpy keeps the stream of RandomState the same in every version, as a stored sketch needs.
    signs = np.random.RandomState(0).choice([-1.0, 1.0], size=picked.shape[1])
    groups = np.array_split(np.random.RandomState(1).permutation(picked.shape[1]), BUCKETS)
    return np.concatenate([(picked * signs)[:, group].sum(axis=1) for group in groups])


def _encode(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _decode(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
