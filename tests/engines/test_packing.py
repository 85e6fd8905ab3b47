"""Tensors as buffers and back: values, strides, dtypes, shared memory and alignment survive."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infopro.engines.packing import fitted, layout_of, pack, storages_of, unpack

ALIGNMENT = 64  # bytes, of torch's CPU allocator
DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int64,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
]


def numbers(*shape, dtype=torch.float32):
    size = torch.Size(shape).numel()
    return (torch.arange(size) % 2 if dtype == torch.bool else torch.arange(size)).to(dtype).view(shape)


def sent(tensors, **options):
    """What a receiver makes of a message: the buffers' bytes, in memory of its own."""
    layout, buffers = pack(tensors, **options)
    assert layout.num_bytes == tuple(len(buffer) for buffer in buffers)
    return unpack(layout, [buffer.clone() for buffer in buffers])


def require_alike(expected, found, *, strides=True):
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.stride() == other.stride() or not strides
        assert torch.equal(one, other)


CASES = {
    "contiguous": lambda: [numbers(2, 3)],
    "channels last": lambda: [numbers(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)],
    "transposed": lambda: [numbers(3, 5).T],
    "rows of a slice": lambda: [numbers(20, 3)[7:15]],
    "columns of a slice": lambda: [numbers(6, 5)[:, 1:4]],
    "every second": lambda: [numbers(11)[1::2]],
    "expanded": lambda: [numbers(3, 1).expand(3, 5)],
    "expanded scalar": lambda: [numbers(1).expand(7)],
    "without dimensions": lambda: [torch.tensor(3.5), torch.tensor(7)],
    "empty": lambda: [torch.empty(0), numbers(3), torch.empty(4, 0, dtype=torch.int64)],
    "empty slice": lambda: [numbers(9)[9:], numbers(9)[4:4]],
    "nothing but empty": lambda: [torch.empty(0)],
    "requires grad": lambda: [numbers(3).requires_grad_(), numbers(3).requires_grad_() * 2],
    "of one storage": lambda: [*numbers(24).split(7)],
    "the same twice": lambda: [numbers(4)] * 2,
    "scattered over one storage": lambda: numbers(1000).split([5, 295, 10, 690])[::-2],
    "bytes beside their meaning": lambda: (lambda whole: [whole, whole[:8].view(torch.float32)])(
        numbers(10, dtype=torch.uint8)
    ),
    **{
        f"{dtype}".replace("torch.", ""): lambda dtype=dtype: [numbers(3, 5, dtype=dtype)] for dtype in DTYPES
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_message_arrives_with_its_values_types_and_strides(case):
    tensors = CASES[case]()
    require_alike(tensors, sent(tensors))


@st.composite
def views(draw):
    """A view of a storage, as slices, steps, permutations and expansions make it."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    tensor = numbers(*shape, dtype=dtype)
    for dim, length in enumerate(shape):
        start = draw(st.integers(0, length))
        tensor = tensor.narrow(dim, start, draw(st.integers(0, length - start)))
        if draw(st.booleans()):
            tensor = tensor[(slice(None),) * dim + (slice(None, None, draw(st.integers(1, 3))),)]
    tensor = tensor.permute(draw(st.permutations(range(len(shape)))))
    if draw(st.booleans()):
        tensor = tensor.unsqueeze(0).expand(draw(st.integers(1, 3)), *tensor.shape)
    return tensor


def touched(tensor):
    """Elements of its storage from the first to the last that it reads."""
    if not tensor.numel():
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))


@given(st.lists(views(), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_any_views_arrive(tensors):
    found = sent(tensors)
    require_alike(tensors, found, strides=False)
    for tensor, other in zip(tensors, found, strict=True):
        if touched(tensor) <= 2 * tensor.numel():
            assert tensor.stride() == other.stride()


@given(st.lists(views(), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_message_is_at_most_about_twice_its_content(tensors):
    layout, _ = pack(tensors)
    content = sum(max(t.numel() * t.element_size(), t.element_size()) for t in tensors)
    assert sum(layout.num_bytes) <= 2 * content + len(tensors) * ALIGNMENT


@given(st.lists(views(), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_tensors_lie_as_well_aligned_as_they_did(tensors):
    layout, buffers = layout_of(tensors)
    for tensor, other in zip(tensors, unpack(layout, [b.clone() for b in buffers]), strict=True):
        if tensor.numel() and tensor.untyped_storage().data_ptr() % ALIGNMENT == 0:
            assert other.data_ptr() % ALIGNMENT == tensor.data_ptr() % ALIGNMENT


def test_a_slice_that_begins_between_two_boundaries_keeps_its_place():
    whole = torch.arange(100.0)
    assert whole.data_ptr() % ALIGNMENT == 0
    layout, buffers = layout_of([whole[21:90]])
    assert layout.tensors[0].offset == 21 - 16
    assert unpack(layout, [b.clone() for b in buffers])[0].data_ptr() % ALIGNMENT == (21 - 16) * 4


def test_what_shared_memory_shares_it_again():
    whole = numbers(4, 6)
    found = sent([whole, whole[1:3], numbers(2), whole.T])
    found[0][1, 5] = -1.0
    assert found[1][0, 5] == -1.0 and found[3][5, 1] == -1.0
    assert len(storages_of(found)) == 2


def test_a_small_part_beside_its_whole_still_shares_memory():
    """A module that writes in place on the whole changes the part in one process, too."""
    whole = numbers(2, 8, 3, 3)
    found = sent([whole[:, :1], whole])
    found[1].neg_()
    assert torch.equal(found[0], -whole[:, :1])


def test_each_storage_travels_once():
    whole = numbers(100)
    layout, buffers = layout_of([whole[:60], whole[30:], whole.view(10, 10)])
    assert layout.num_bytes == (400,)
    assert buffers[0].untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


def test_nothing_is_copied_that_need_not_be():
    dense, other = numbers(10), numbers(4, 4).T
    _, buffers = pack([dense, other])
    assert storages_of(buffers) == storages_of([dense, other])


@pytest.mark.parametrize("parts", [2, 3])
def test_a_slice_does_not_drag_a_large_map_along(parts):
    whole = numbers(4, 6, 8, 8)
    part = whole.chunk(parts, 1)[1]
    layout, buffers = pack([part])
    size = part.numel() * 4
    if parts == 2:  # less than half of what it spans is empty
        assert size < layout.num_bytes[0] < whole.nbytes
        assert storages_of(buffers) == storages_of([whole])
    else:
        assert layout.num_bytes == (size,)
        assert not storages_of(buffers) & storages_of([whole])
    require_alike([part], sent([part]), strides=parts == 2)


def test_a_slice_that_is_made_dense_stays_channels_last():
    """Other strides would mean other kernels, and other roundings, than in one process."""
    part = numbers(2, 12, 3, 5).contiguous(memory_format=torch.channels_last)[:, 2:6]
    found = sent([part])[0]
    assert torch.equal(found, part)
    assert found.is_contiguous(memory_format=torch.channels_last) and not found.is_contiguous()


def test_storages_that_are_about_to_be_overwritten_are_copied_and_no_others():
    reused, kept = numbers(10), numbers(5)
    tensors = [reused[2:], kept, reused.view(2, 5)]
    layout, buffers = pack(tensors, copied=storages_of([reused]))
    assert layout == layout_of(tensors)[0]
    reused.fill_(-1.0)
    kept.fill_(-2.0)
    first, second, third = unpack(layout, buffers)
    assert first.tolist() == list(range(2, 10)) and third.tolist() == [list(range(5)), list(range(5, 10))]
    assert second.tolist() == [-2.0] * 5


def test_buffers_of_a_given_layout_take_tensors_that_lie_otherwise():
    layout, _ = layout_of([numbers(2, 4, 3, 3), numbers(8)[1:]])
    others = [-numbers(2, 4, 3, 3).contiguous(memory_format=torch.channels_last), -numbers(1).expand(7)]
    found = unpack(layout, fitted(layout, others))
    assert [t.stride() for t in found] == [(36, 9, 3, 1), (1,)]
    require_alike(others, found, strides=False)


def test_buffers_of_a_given_layout_take_tensors_of_a_graph():
    layout, _ = layout_of([numbers(2, 3)])
    weight = numbers(3, 2).requires_grad_()
    (found,) = unpack(layout, fitted(layout, [(weight * 2).T]))
    assert found.tolist() == [[0.0, 4.0, 8.0], [2.0, 6.0, 10.0]] and not found.requires_grad


def test_layouts_are_equal_iff_their_messages_lie_alike():
    def of(*tensors):
        return layout_of(tensors)[0]

    last = numbers(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert of(numbers(2, 3, 4, 4)) == of(torch.rand(2, 3, 4, 4))
    assert of(numbers(2, 3, 4, 4)) != of(last)
    assert of(numbers(3)) != of(numbers(3, dtype=torch.bfloat16))
    whole = numbers(4)
    assert of(whole, whole) != of(whole, numbers(4))
