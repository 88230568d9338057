"""Fingerprints that detect an adapter on a base model that it was not made for.

ID-LoRA's A_i are rows of the base's W; on another base the same indices give other rows. A saved adapter therefore
contains sketches of some pivot rows of some modules, spread evenly over the model, and loading compares them with the
rows of the current base. The sketch of a row is a count sketch: entries get pseudo-random signs and are summed in
`BUCKETS` groups. It is linear in the row, so the distance of two sketches estimates the distance of the rows, relative
to their length. The median over the modules decides, since coarse rounding changes single modules a lot. Measured
medians on SmolLM2-135M-Instruct (210 modules, k = 4, r = 32):

    the same base in int8                              0.01
    in NF4; in int4, a scale for each row              0.10; 0.17
    in int4, one scale for the whole matrix            0.62
    times two                                          1.00
    random weights of that size; rows shifted by one   1.73; 1.67

The check guards against mistakes only: differences in rows and modules without a sketch go unnoticed.
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
"""Modules with a sketch, about 3.3 KB of adapter_config.json. For LLaMA-3-8B they include every kind of its 224."""

REFUSED = 0.8
"""Median distance above which the base is another one: between the coarsest rounding and the nearest other base."""

NOTICED = 0.01
"""Distance of one module above which an unquantised base may be a fine-tuned or merged copy."""


class BaseMismatchError(ValueError):
    """An adapter was about to be put on a base model that it was not made for."""


def take_fingerprint(weight: torch.Tensor, pivots: torch.Tensor) -> str:
    """Return the fingerprint of a module as text: its shape, up to `ROWS` of its pivots, and their sketches.

    weight is (out, in), pivots (k, r) integers. The rows nearest to the centroid represent each cluster.
    """
    rows = pivots.T.flatten()[:ROWS].cpu().numpy().astype("<i4")
    sketch = _sketch(weight, rows).astype("<f4")
    out_features, in_features = weight.shape
    return f"{out_features}x{in_features} {_encode(rows)} {_encode(sketch)}"


def distance(fingerprint: str, weight: torch.Tensor) -> float:
    """Return the distance between the rows of a weight (out, in) and the fingerprint's, relative to their length.

    It is infinite if the shapes differ. Raises ValueError for a text that is not a fingerprint.
    """
    try:
        shape, rows, sketch = fingerprint.split(" ")
        out_features, in_features = map(int, shape.split("x"))
        rows, saved = _decode(rows, "<i4"), _decode(sketch, "<f4")
    except ValueError as error:
        raise ValueError(f"not a fingerprint of base rows: {fingerprint!r}") from error
    if weight.shape != (out_features, in_features):
        return float("inf")
    # The divisor is positive for rows of zeros too: any difference from them is large.
    return float(np.linalg.norm(_sketch(weight, rows) - saved) / max(np.linalg.norm(saved), np.finfo(np.float32).tiny))


def sampled(names: list[str]) -> list[str]:
    """Return at most `MODULES` of the names, evenly spaced, with the first and the last."""
    if len(names) <= MODULES:
        return names
    return [names[i * (len(names) - 1) // (MODULES - 1)] for i in range(MODULES)]


def check_distances(distances: dict[str, float | None], *, quantized: bool, made_for: str | None) -> None:
    """Refuse a base model, or warn about it, by the distances of the modules that have a fingerprint.

    A distance is None if the weight cannot be read (on the meta device, or in a format that PEFT cannot decode), and
    infinite if the module is missing or has another shape.

    Raises BaseMismatchError if a distance is infinite or NaN, or the median exceeds the effect of rounding to 4 bits.
    Warns if distances are missing, or if one exceeds the effect of rounding to 16 bits (4 if the base is quantised).
    """
    known = {name: value for name, value in distances.items() if value is not None}
    refusal = "this adapter belongs to another base model: {}. Load it on " + (made_for or "the one it was trained on")
    for name, value in known.items():
        if not math.isfinite(value):
            reason = "holds NaN here" if math.isnan(value) else "is missing here, or has another shape"
            raise BaseMismatchError(refusal.format(f"{name} {reason}"))
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
    """Return count sketches of some rows of a weight (out, in): len(rows)·BUCKETS numbers, float64."""
    picked = weight[torch.from_numpy(rows.astype(np.int64)).to(weight.device)].detach().double().cpu().numpy()
    # A stored sketch needs RandomState: numpy keeps its stream the same in every version.
    signs = np.random.RandomState(0).choice([-1.0, 1.0], size=picked.shape[1])
    groups = np.array_split(np.random.RandomState(1).permutation(picked.shape[1]), BUCKETS)
    return np.concatenate([(picked * signs)[:, group].sum(axis=1) for group in groups])


def _encode(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _decode(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
