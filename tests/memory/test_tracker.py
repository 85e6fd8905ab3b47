import torch
from torch import nn

from infopro.memory.tracker import KINDS, MemoryTracker
from infopro.splitting.fake import FakeNetwork


def test_bytes_are_counted_while_they_live_and_no_longer():
    with MemoryTracker() as tracker:
        a = torch.zeros(1000)  # 4000 bytes
        b = a.view(10, 100)  # shares them
        c = a + 1
        assert tracker.totals.total() == 8000
        del a
        assert tracker.totals.total() == 8000, "a view keeps the storage"
        del b, c
        assert tracker.totals.total() == 0
    assert tracker.peak == 8000 and tracker.at_peak == {"temporary": 8000}


def test_labels_move_bytes_and_the_peak_is_their_sum():
    with MemoryTracker() as tracker:
        weight = torch.zeros(100)
        tracker.label(weight, "parameters")
        tracker.label(weight, "activations", only="temporary")  # is a parameter already
        result = weight * 2
        tracker.label(result, "activations", only="temporary")
        del weight
    assert tracker.at_peak["parameters"] == 400 and sum(tracker.at_peak.values()) == tracker.peak == 800
    assert tracker.totals["parameters"] == 0 and tracker.totals["activations"] == 400
    assert set(tracker.at_peak) <= set(KINDS)


def test_rounding_follows_the_allocator():
    with MemoryTracker(rounded=True) as tracker:
        kept = [torch.zeros(1), torch.zeros(129)]
    assert tracker.peak == 512 + 1024 and kept


def test_operations_are_counted_as_torch_counts_them():
    from torch.utils.flop_counter import FlopCounterMode

    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5))
    x = torch.randn(2, 3, 8, 8)
    with FlopCounterMode(display=False) as counter:
        network(x).sum().backward()
    with MemoryTracker() as tracker:
        network(x).sum().backward()
    assert tracker.flops == counter.get_total_flops() > 0


def test_fake_and_real_tensors_give_the_same_numbers():
    network, x = nn.Sequential(nn.Linear(30, 40), nn.GELU(), nn.Linear(40, 2)), torch.randn(7, 30)
    twin = FakeNetwork(network)
    real = trace(network, x)
    with twin.mode:
        assert trace(twin.model, twin.inputs(x)) == real
    forward = 2 * 7 * (30 * 40 + 40 * 2)
    assert real[2] == 2 * forward + 2 * 7 * 40 * 2, "and backward: every weight, the second layer's input"


def trace(network, x):
    with MemoryTracker() as tracker:
        loss = network(x).square().sum()
        saved = tracker.totals.total()
        loss.backward()
    for parameter in network.parameters():
        parameter.grad = None
    return saved, tracker.peak, tracker.flops
