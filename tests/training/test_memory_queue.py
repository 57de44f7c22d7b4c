"""The memory queue against a list that is overwritten row by row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.memory_queue import SlowQueue

from c2l_models.training.memory_queue import MemoryQueue

UNTOUCHED = -1.0


def numbered(first, count):
    """`count` one-component features with the values first, first + 1, ..."""
    return torch.arange(first, first + count, dtype=torch.float32).unsqueeze(1)


def empty(length):
    """A queue of one component, every row marked as never written."""
    queue = MemoryQueue(length, 1)
    queue.keys.fill_(UNTOUCHED)
    return queue


@pytest.mark.parametrize(("length", "batch"), [(32768, 256), (1009, 64), (97, 32)])
def test_three_batches_a_step_past_the_end_and_on(length, batch):
    queue, slow = empty(length), SlowQueue([UNTOUCHED] * length)
    for step in range(2 * length // (3 * batch) + 3):  # a little more than twice around
        first = 3 * batch * step
        batches = [numbered(first + n * batch, batch) for n in range(3)]
        queue.insert(*batches)
        slow.insert(*(rows.flatten().tolist() for rows in batches))
        if length < 2000 or step % 20 == 0 or first % length > length - 3 * batch:
            assert queue.keys.flatten().tolist() == slow.rows
            assert int(queue.pointer) == slow.oldest
    assert queue.keys.flatten().tolist() == slow.rows


def test_the_wrap_by_hand():
    queue = empty(5)
    queue.insert(numbered(0, 2), numbered(2, 1))
    assert queue.keys.flatten().tolist() == [0, 1, 2, -1, -1]
    queue.insert(numbered(10, 1), numbered(20, 2), numbered(30, 1))
    assert queue.keys.flatten().tolist() == [21, 30, 2, 10, 20]
    assert int(queue.pointer) == 2


def test_no_key_is_dropped_where_the_step_does_not_divide_the_length():
    queue = empty(32768)
    for step in range(43):  # 43 * 768 = 33024 rows
        queue.insert(numbered(768 * step, 768))
    kept = set(queue.keys.flatten().tolist())
    assert kept == set(map(float, range(33024 - 32768, 33024)))


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 40), sizes=st.lists(st.integers(0, 12), max_size=20))
def test_any_lengths(length, sizes):
    queue, slow = empty(length), SlowQueue([UNTOUCHED] * length)
    first = 0
    for size in sizes:
        if size > length:
            continue
        rows = numbered(first, size)
        queue.insert(rows)
        slow.insert(rows.flatten().tolist())
        first += size
        assert queue.keys.flatten().tolist() == slow.rows
        assert int(queue.pointer) == slow.oldest


def test_more_rows_than_the_queue_holds_are_refused():
    queue = empty(5)
    with pytest.raises(ValueError, match=r"at most 5 features.*found 6"):
        queue.insert(numbered(0, 3), numbered(3, 3))
    assert queue.keys.flatten().tolist() == [UNTOUCHED] * 5


def test_it_begins_with_random_unit_vectors():
    queue = MemoryQueue(500, 16, torch.Generator().manual_seed(0))
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(500))
    assert queue.keys.mean(dim=0).norm() < 0.15  # directions cancel out
    again = MemoryQueue(500, 16, torch.Generator().manual_seed(0))
    assert torch.equal(queue.keys, again.keys)


def test_rows_are_kept_as_given_and_carry_no_gradient():
    queue = MemoryQueue(8, 2)
    rows = torch.tensor([[3.0, 4.0], [0.0, 2.0]], requires_grad=True)
    queue.insert(rows)
    assert queue.keys[:2].tolist() == [[3.0, 4.0], [0.0, 2.0]]
    assert not queue.keys.requires_grad
    assert not list(queue.parameters())


def test_the_state_dict_brings_back_rows_and_pointer():
    queue = empty(7)
    queue.insert(numbered(0, 5))
    other = MemoryQueue(7, 1)
    other.load_state_dict(queue.state_dict())
    for both in (queue, other):
        both.insert(numbered(50, 4))
    assert other.keys.flatten().tolist() == queue.keys.flatten().tolist() == [52, 53, 2, 3, 4, 50, 51]
