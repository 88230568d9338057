"""The rank of the update, against Eq. 4 written out."""

from dataclasses import replace

import numpy as np
import pytest

from reproduction.theory.rank import Rank, boosted, lora_rank, measure

SETTINGS = Rank(seed=0, draws=2, side=24, tokens=40, ranks=(4,), splits=(1, 2, 4), clusters=(1, 3))


@pytest.mark.parametrize("splits", [1, 2, 4])
def test_boosting_is_the_concatenation_of_b_times_the_parts(splits: int) -> None:
    rng = np.random.default_rng(0)
    basis, x = rng.normal(size=(24 // splits, 8 // splits)), rng.normal(size=8)
    parts = np.concatenate([basis @ part for part in np.split(x, splits)])
    np.testing.assert_allclose(boosted(basis, splits) @ x, parts)


@pytest.mark.parametrize("splits", [1, 2, 4])
def test_the_update_has_rank_r_and_only_what_it_reads_has_k_r(splits: int) -> None:
    found = measure(np.random.default_rng(0), SETTINGS, r=4, k=3, splits=splits)
    assert found["update"] == found["outputs_dense"] == found["outputs_inner"] == 4
    assert found["inputs"] == found["separate_b"] == 12
    assert not found["update_reaches_kr"]
    assert found["separate_b_reaches_kr"]


def test_with_one_cluster_nothing_is_said_of_k_r_and_unsplit_nothing_of_boosting() -> None:
    found = measure(np.random.default_rng(0), SETTINGS, r=4, k=1, splits=1)
    assert not {"update_reaches_kr", "above_unsplit_b"} & set(found)
    assert "above_unsplit_b" in measure(np.random.default_rng(0), SETTINGS, r=4, k=1, splits=2)


def test_lora_at_equal_count_trains_no_more_than_id_lora() -> None:
    assert lora_rank(24, 8, k=2, splits=2) == 2  # (24·8/4 + 2·24) / (2·24)
    assert lora_rank(24, 8, k=2, splits=1) == 5


def test_sizes_that_do_not_split_are_refused() -> None:
    with pytest.raises(ValueError, match="s = 3 must divide r = 4"):
        replace(SETTINGS, splits=(3,))
    with pytest.raises(ValueError, match="11 tokens cannot show a rank of k·r = 12"):
        replace(SETTINGS, tokens=11)
