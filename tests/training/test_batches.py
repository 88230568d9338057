"""How a step is cut into micro-batches, which rows it has, and how they become tensors."""

import pytest
from cells import schedule

from reproduction.data import TokenizedSet
from reproduction.training.batches import Collator, sampler


@pytest.mark.parametrize(
    ("batch_size", "micro_batch_size", "processes", "expected"),
    [
        (32, 4, 1, (4, 8)),
        (32, 4, 2, (4, 4)),
        (32, 4, 8, (4, 1)),
        (32, 4, 16, (2, 1)),  # fewer rows than the micro-batch may have
        (32, 4, 32, (1, 1)),
        (32, 5, 1, (4, 8)),  # the most that divide evenly
        (30, 4, 2, (3, 5)),
        (14, 4, 2, (1, 7)),
        (32, 100, 1, (32, 1)),
    ],
)
def test_a_step_has_the_rows_that_the_config_says_however_it_is_cut(batch_size, micro_batch_size, processes, expected):
    found = schedule(batch_size=batch_size, micro_batch_size=micro_batch_size).division(processes)
    assert found == expected
    assert found[0] * found[1] * processes == batch_size


@pytest.mark.parametrize(("batch_size", "processes"), [(32, 3), (2, 4), (15, 2)])
def test_a_batch_that_the_processes_cannot_share_is_refused_with_the_ways_out(batch_size, processes):
    sentence = rf"batch_size={batch_size} cannot be shared evenly by {processes} processes: .* multiple of {processes}"
    with pytest.raises(ValueError, match=sentence):
        schedule(batch_size=batch_size).division(processes)


def made(lengths: list[int]) -> TokenizedSet:
    return TokenizedSet([{"input_ids": [5] * n, "labels": [5] * n} for n in lengths], [str(n) for n in lengths])


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize(("rows", "whole"), [(27, 24), (24, 24), (8, 8), (5, 5)])
def test_an_epoch_is_whole_steps_and_a_set_smaller_than_one_is_a_step(rows, whole, by_length):
    order = sampler(made([1 + n % 7 for n in range(rows)]), batch_size=8, seed=3, by_length=by_length)
    indices = list(order)
    assert len(order) == len(indices) == len(set(indices)) == whole
    assert set(indices) <= set(range(rows))


def test_rows_of_like_length_are_neighbours_in_a_step_and_each_epoch_and_seed_has_its_own_steps():
    lengths = [1 + 7 * n % 31 for n in range(40)]

    def steps(seed, epoch):
        order = sampler(made(lengths), batch_size=8, seed=seed, by_length=True)
        order.set_epoch(epoch)
        indices = list(order)
        return [indices[start : start + 8] for start in range(0, 40, 8)]

    for step in steps(0, 0):
        assert [lengths[row] for row in step] == sorted((lengths[row] for row in step), reverse=True)
    assert steps(0, 0) == steps(0, 0)
    assert [sorted(step) for step in steps(0, 0)] != [sorted(step) for step in steps(0, 1)]
    assert [sorted(step) for step in steps(0, 0)] != [sorted(step) for step in steps(1, 0)]
    assert sorted(map(len, steps(0, 0))) == [8] * 5


def test_rows_are_padded_on_the_right_and_padding_is_neither_read_nor_learnt(tokenizer):
    batch = Collator(tokenizer)([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7], [8, 0, 0]],
        "labels": [[-100, 6, 7], [8, -100, -100]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }


def test_packed_rows_keep_their_positions_and_padding_begins_an_example_of_its_own(tokenizer):
    packed = [
        {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, 6, 7, -100, 9], "position_ids": [0, 1, 2, 0, 1]},
        {"input_ids": [4, 4, 4], "labels": [4, 4, 4], "position_ids": [0, 0, 1]},
    ]
    batch = Collator(tokenizer)(packed)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 7, 8, 9], [4, 4, 4, 0, 0]],
        "labels": [[-100, 6, 7, -100, 9], [4, 4, 4, -100, -100]],
        "position_ids": [[0, 1, 2, 0, 1], [0, 0, 1, 0, 0]],
    }
