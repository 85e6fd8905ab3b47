import pytest
import torch
from torch import nn

import infopro
from infopro.analysis import frozen_features, own_reconstructions, probe_reconstructions
from infopro.errors import BadInput, UnknownName
from infopro.models.cifar_resnet import CifarResNet
from infopro.objectives import EndToEnd, Greedy, InfoPro, reconstruction_loss

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
TASK = infopro.tasks.Classification(num_classes=3, mean=MEAN, std=STD)
BLOCKS = ("layer1.0", "layer1.1", "layer2.0")


def images(size, seed=0):
    """Smooth, normalised: each a gradient of two colours."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(size, 3, 2, 2, generator=generator)
    smooth = nn.functional.interpolate(corners, size=(16, 16), mode="bilinear", align_corners=True)
    return (smooth - TASK.mean.view(3, 1, 1)) / TASK.std.view(3, 1, 1)


def network():
    torch.manual_seed(0)
    model = CifarResNet(blocks=(2, 1, 1), widths=(4, 8, 8), num_classes=3, in_channels=3).train()
    model.layer1[0].bn1.eval()
    return model


def build(objective):
    where = {"cuts": BLOCKS} if objective.num_modules is None else {}
    return infopro.localize(network(), images(2), objective=objective, task=TASK, **where)


def trace(model):
    return (
        [module.training for module in model.modules()],
        [len(m._forward_hooks) for m in model.modules()],
        [p.grad for p in model.parameters()],
        {name: value.clone() for name, value in model.state_dict().items()},
    )


def assert_no_trace(before, model):
    after = trace(model)
    assert before[:3] == after[:3]
    assert all(torch.equal(value, after[3][name]) for name, value in before[3].items())


def test_features_are_the_blocks_outputs_in_eval_mode():
    model, x = network(), images(4)
    before = trace(model)
    with frozen_features(model, BLOCKS) as features_of:
        found = features_of(x)
        assert not model.training
    assert_no_trace(before, model)
    assert list(found) == list(BLOCKS)
    model.eval()
    stem = model.relu(model.bn1(model.conv1(x)))
    assert torch.equal(found["layer1.0"], model.layer1[0](stem))
    assert torch.equal(found["layer1.1"], model.layer1(stem))
    assert not any(feature.requires_grad for feature in found.values())


def test_features_are_safe_from_writes_in_place():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True))
    with frozen_features(model, ["0"]) as features_of:
        found = features_of(images(2))["0"]
    assert torch.equal(found, model[0](images(2))) and (found < 0).any()


def test_hooks_come_off_after_an_error():
    model = network()
    before = trace(model)
    with pytest.raises(RuntimeError, match="broken"), frozen_features(model, BLOCKS):
        raise RuntimeError("broken")
    assert_no_trace(before, model)
    with pytest.raises(UnknownName, match=r"unknown block: got 'layer1.2'; did you mean layer1.1"):
        frozen_features(model, ["layer1.0", "layer1.2"]).__enter__()
    assert_no_trace(before, model)


def test_probes_leave_no_trace_when_their_images_are_wrong():
    model = network()
    before = trace(model)
    with pytest.raises(RuntimeError):
        probe_reconstructions(
            model, TASK, blocks=BLOCKS, batches=[(torch.rand(2, 4, 16, 16), None)], images=images(2)
        )
    assert_no_trace(before, model)


def test_own_decoders_are_used_and_left_as_they_were():
    local = build(InfoPro())
    local.stages[1].heads["reconstruction"].eval()
    before, modes = trace(local), [m.training for m in local.modules()]
    found = own_reconstructions(local, images(5))
    assert_no_trace(before, local)
    assert [m.training for m in local.modules()] == modes
    assert [view.block for view in found] == list(BLOCKS)
    unit = TASK.to_unit(images(5))
    for view in found:
        assert view.images.shape == (5, 3, 16, 16)
        assert view.images.min() >= 0 and view.images.max() <= 1
        assert view.error == pytest.approx(reconstruction_loss(view.images, unit).item(), rel=1e-6)
    local.eval()
    with frozen_features(local.model, BLOCKS) as features_of, torch.no_grad():
        features = features_of(images(5))
        for stage, view in zip(local.stages, found, strict=False):
            assert torch.equal(stage.heads["reconstruction"](features[view.block]), view.images)


def test_modes_come_back_after_an_error_in_a_decoder(monkeypatch):
    local = build(InfoPro())
    before = trace(local)
    decoder = type(local.stages[2].heads["reconstruction"])

    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(decoder, "forward", fail)
    with pytest.raises(RuntimeError, match="broken"):
        own_reconstructions(local, images(2))
    assert_no_trace(before, local)


@pytest.mark.parametrize("objective", [Greedy(), InfoPro(reconstruction_weight=None)])
def test_objectives_without_decoders_are_explained(objective):
    with pytest.raises(BadInput, match=r"has no decoders: got heads \['task'\]; .* probe_reconstructions"):
        own_reconstructions(build(objective), images(2))


def test_end_to_end_has_no_blocks_to_decode():
    assert own_reconstructions(build(EndToEnd()), images(2)) == []


def probe(num_batches, **options):
    torch.manual_seed(1)
    model = network()
    before = trace(model)
    batches = [(images(16, seed), torch.zeros(16)) for seed in range(num_batches)]
    found = probe_reconstructions(
        model, TASK, blocks=BLOCKS, batches=batches, images=images(8, 99), **options
    )
    assert_no_trace(before, model)
    return found


def test_probes_learn_while_the_network_stays_frozen():
    untrained, trained = probe(0), probe(40)
    assert [view.block for view in trained] == list(BLOCKS)
    assert all(view.images.shape == (8, 3, 16, 16) for view in trained)
    for before, after in zip(untrained, trained, strict=True):
        assert after.error < before.error - 0.05
    # no more than the image itself can be known: its entropy is the smallest error
    unit = TASK.to_unit(images(8, 99))
    assert all(view.error > reconstruction_loss(unit, unit).item() for view in trained)


def test_probes_take_the_form_and_rate_that_are_asked_for():
    assert [v.error for v in probe(4)] != [v.error for v in probe(4, learning_rate=0.1)]
    assert [v.error for v in probe(4)] != [v.error for v in probe(4, decoder_name="half")]
    assert [v.error for v in probe(4)] == [v.error for v in probe(4, decoder_name="cifar")]


def test_many_images_are_decoded_in_chunks(monkeypatch):
    local = build(InfoPro())
    whole = own_reconstructions(local, images(7))
    monkeypatch.setattr("infopro.analysis.reconstructions._CHUNK", 3)
    for left, right in zip(whole, own_reconstructions(local, images(7)), strict=True):
        assert torch.allclose(left.images, right.images, atol=1e-6)
        assert left.error == pytest.approx(right.error, rel=1e-6)
