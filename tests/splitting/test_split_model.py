import random

import pytest
import timm
import torch
import torchvision
from torch import nn

from infopro.errors import BadInput, BadSplit, NotReplayable, NotSplittable, NotYetSupported
from infopro.models import cifar_resnet
from infopro.splitting import blocks, split_model
from infopro.splitting.part import Part


def chained(split, inputs):
    flow = split.start(inputs)
    for part in split.parts:
        flow = part(flow.detached())
    return split.parts[-1].result(flow)


def seeded(model, inputs, run):
    """The result and the buffers after one seeded train-mode run, the network restored."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    result = run()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    model.load_state_dict(state)
    return result, buffers


FAMILIES = {
    "torchvision resnet": (lambda: torchvision.models.resnet18(num_classes=10), 64),
    "torchvision densenet": (lambda: torchvision.models.densenet121(num_classes=10), 64),
    "torchvision mobilenet": (lambda: torchvision.models.mobilenet_v2(num_classes=10), 64),
    "torchvision swin": (lambda: torchvision.models.swin_t(num_classes=10), 64),
    "timm vit": (
        lambda: timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, drop_path_rate=0.2),
        64,
    ),
    "timm convnext": (lambda: timm.create_model("convnext_atto", num_classes=10, drop_path_rate=0.2), 64),
    "timm beit": (
        lambda: timm.create_model(
            "beit_base_patch16_224", num_classes=10, embed_dim=96, num_heads=2, depth=4
        ),
        224,
    ),
    "timm crossvit": (lambda: timm.create_model("crossvit_tiny_240", num_classes=10), 240),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_in_a_row_equal_the_network_bit_for_bit(family):
    build, side = FAMILIES[family]
    torch.manual_seed(0)
    model = build().train()
    keys, identities = list(model.state_dict()), [id(p) for p in model.parameters()]
    split = split_model(model, torch.randn(2, 3, side, side), num_modules=3)
    images = (torch.randn(3, 3, side, side),)  # a batch size that was not recorded at first

    expected, buffers = seeded(model, images, lambda: model(*images))
    found, buffers_found = seeded(model, images, lambda: chained(split, images))

    assert torch.equal(expected, found)
    assert all(torch.equal(buffers[name], buffers_found[name]) for name in buffers)
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == identities
    owners = [sum(any(p is q for q in part.parameters()) for part in split.parts) for p in model.parameters()]
    assert min(owners) >= 1, "every parameter belongs to a part"


def test_splitting_leaves_no_trace_on_the_network():
    model = torchvision.models.resnet18(num_classes=10).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(2, 3, 64, 64)
    random_state, call = torch.get_rng_state(), nn.Module.__call__
    split_model(model, images, num_modules=4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())
    assert nn.Module.__call__ is call
    assert not model.training and not any(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_interception_ends_also_after_an_error():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 4)

        def forward(self, x):
            self.body(x)
            raise RuntimeError("broken")

    call = nn.Module.__call__
    with pytest.raises(BadInput, match="broken"):
        split_model(Broken(), torch.zeros(2, 4), cuts=["body"])
    assert nn.Module.__call__ is call


def test_dropout_draws_afresh_in_every_call():
    model = nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.5), nn.Linear(32, 32)).train()
    split = split_model(model, torch.randn(2, 32), cuts=["1"])
    x = (torch.randn(4, 32),)
    assert not torch.equal(chained(split, x), chained(split, x))


class Skips(nn.Module):
    """A small U-Net: the encoder's first map is read behind the cut."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, padding=1)
        self.middle = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.up = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x):
        first = self.down(x).relu_()
        deep = nn.functional.interpolate(self.middle(first), size=first.shape[2:])
        return {"out": self.up(torch.cat([deep, first], 1)), "sizes": [x.shape[0]]}


def test_tensors_that_cross_a_cut_are_carried_detached():
    model = Skips()
    split = split_model(model, torch.randn(2, 3, 8, 8), cuts=["middle"])
    assert split.description.carried == (1,)
    assert split.description.boundary_shapes == ((4, 4, 4),)
    result = chained(split, (torch.randn(5, 3, 8, 8),))
    assert result["sizes"] == [5], "the result keeps its structure and follows the batch"
    result["out"].sum().backward()
    assert model.up.weight.grad is not None
    assert model.down.weight.grad is None and model.middle.weight.grad is None


def test_another_resolution_is_recorded_anew():
    split = split_model(Skips(), torch.randn(2, 3, 8, 8), cuts=["middle"])
    x = torch.randn(3, 3, 12, 12)
    assert torch.equal(chained(split, (x,))["out"], split.model(x)["out"])


def test_glue_parameters_and_constants():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.randn(1, 5, 8))
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            x = self.first(x + self.position[:, : x.shape[1]])
            return self.second(x + self.position[:, : x.shape[1]]).reshape(x.shape[0] * 5, 8)

    model = Positions()
    split = split_model(model, torch.randn(2, 5, 8), cuts=["first"])
    x = torch.randn(7, 5, 8)
    assert torch.equal(chained(split, (x,)), model(x))
    assert [any(p is model.position for p in part.parameters()) for part in split.parts] == [True, True]
    assert any("1 parameters are used by several modules" in note for note in split.description.notes)


def test_in_place_write_on_the_boundary_is_reported():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
    noted = split_model(model, torch.randn(2, 3, 4, 4), cuts=["1"]).description.notes
    clean = split_model(model, torch.randn(2, 3, 4, 4), cuts=["2"]).description.notes
    assert any("module 2 writes in place" in note for note in noted) and not clean


def test_what_no_module_trains_is_noted():
    """Of two equal results the first is what a module learns from; what the second comes from does not."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = self.first(x)
            return x, self.second(x)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = Two(), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            first, second = self.encoder(x)
            return self.head(first + second)

    (note,) = split_model(Network(), torch.randn(2, 3, 4, 4), cuts=["encoder"]).description.notes
    assert note.startswith("2 parameters are trained by no module, the first is encoder.second.weight:")
    assert split_model(Skips(), torch.randn(2, 3, 8, 8), cuts=["middle"]).description.notes == ()
    frozen = Network()
    frozen.encoder.second.requires_grad_(False)
    assert split_model(frozen, torch.randn(2, 3, 4, 4), cuts=["encoder"]).description.notes == ()


class Branch(nn.Module):
    """Branches on a value of its inputs, behind its first block, as masked language models do."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, mask):
        x = self.first(x)
        return self.second(x) if mask.bool().all() else self.second(x * mask)


def test_a_new_branch_on_input_values_is_recorded_when_it_comes():
    split = split_model(Branch(), (torch.randn(2, 4), torch.ones(2, 1)), cuts=["first"])
    assert not split.description.live
    for mask in (torch.ones(3, 1), torch.zeros(3, 1), torch.ones(3, 1)):
        inputs = (torch.randn(3, 4), mask)
        assert torch.equal(chained(split, inputs), split.model(*inputs))
    (programs,) = split._programs.values()
    assert len(programs) == 2


def test_a_branch_that_is_new_in_every_batch_ends_with_the_remedy():
    class Counting(Branch):
        def forward(self, x, mask):
            return self.second(self.first(x)) * int(mask.max())

    split = split_model(Counting(), (torch.randn(2, 4), torch.ones(2, 1)), cuts=["first"])
    with pytest.raises(NotReplayable, match=r"ever new ways.*record=False"):
        for value in range(2, 12):
            split.start((torch.randn(2, 4), torch.full((2, 1), float(value))))


class Growing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.first(x)
        for _ in range(x.shape[0]):
            x = x + 1
        return self.second(x)


class OnActivations(Growing):
    def forward(self, x):
        x = self.first(x)
        return self.second(x * 2 if x.sum() > 0 else x)


class LayerDrop(Growing):
    def forward(self, x):
        x = self.first(x)
        return self.second(x * 2 if random.random() > 0.5 else x)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Growing, "depend on the batch size"),
        (OnActivations, "branches on the value of an activation"),
        (LayerDrop, "Python's or NumPy's random numbers"),
    ],
)
def test_what_cannot_be_replayed_runs_live(network, reason):
    model = network()
    state = random.getstate()
    split = split_model(model, torch.randn(2, 4), cuts=["first"])
    assert random.getstate() == state
    assert split.description.live and reason in split.description.notes[0]
    x, features = torch.randn(3, 4), []
    result = split.run((x,), lambda stage, h: features.append((stage, h)))
    random.setstate(state)
    expected = model(x)
    random.setstate(state)
    assert torch.equal(split.run((x,), lambda stage, h: None), expected)
    assert [stage for stage, _ in features] == [0, 1] and torch.equal(features[0][1], model.first(x))
    result.sum().backward()
    assert model.second.weight.grad is not None and model.first.weight.grad is None
    with pytest.raises(NotYetSupported, match="cannot run apart"):
        split.start((x,))


def test_a_cut_that_this_forward_skips_is_an_error_not_a_silent_merge():
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
            self.skip = False

        def forward(self, x):
            for index, layer in enumerate(self.layers):
                x = x if self.skip and index == 1 else layer(x)
            return x

    model = Skipping()
    split = split_model(model, torch.randn(2, 4), cuts=["layers.1"], record=False)
    model.skip = True
    with pytest.raises(NotSplittable, match=r"did not call the block 'layers.1', which ends module 1"):
        split.run((torch.randn(2, 4),), lambda stage, h: None)


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        (["layer9"], "'layer9' is not a block of the network"),
        (["layer2.0", "layer1.1"], "out of order"),
        (["layer1.1", "layer1.1"], "named 2 times"),
        (["layer1", "layer1.1"], "fall together"),
        (["layer1.0.relu"], "called 2 times"),
        (["fc"], "no block follows"),
    ],
)
def test_bad_cuts_are_explained(cuts, message):
    with pytest.raises(BadSplit, match=message):
        split_model(torchvision.models.resnet18(num_classes=10), torch.randn(2, 3, 32, 32), cuts=cuts)


def test_unsound_cuts_come_with_sound_ones_nearby():
    model, images = torchvision.models.resnet18(num_classes=10), torch.randn(2, 3, 32, 32)
    with pytest.raises(BadSplit, match=r"called 2 times.*sound cuts nearby: layer2\.0, layer2\.1$"):
        split_model(model, images, cuts=["layer2.0.relu"])
    with pytest.raises(BadSplit, match=r"no block follows.*sound cuts nearby: layer4\.0$"):
        split_model(model, images, cuts=["fc"])


def test_too_many_modules_and_wrong_inputs_are_explained():
    model = cifar_resnet(20, 10)
    with pytest.raises(BadSplit, match=r"got num_modules=11; allowed: 1 to 10"):
        split_model(model, torch.randn(2, 3, 32, 32), num_modules=11)
    with pytest.raises(BadSplit, match="at least one module"):
        split_model(model, torch.randn(2, 3, 32, 32), num_modules=0)
    with pytest.raises(BadInput, match=r"cannot take the example input: got \[2, 1, 32, 32\] float32"):
        split_model(model, torch.randn(2, 1, 32, 32), num_modules=2)
    with pytest.raises(BadInput, match="no tensor with a batch dimension"):
        split_model(model, "image.png", num_modules=2)


def test_a_wrong_recording_would_be_found():
    """The test of the test: verification must fail on parts that compute something else."""
    from infopro.splitting.verify import verify

    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    x = torch.randn(4, 4)
    split = split_model(model, x, cuts=["0"])
    program = split._programs[next(iter(split._programs))][0]

    class Wrong(Part):
        def result(self, flow):
            return super().result(flow) * 1.0001

    wrong = [split.parts[0], Wrong(model, 1, blocks=["1", "2"], tensors=[])]
    with pytest.raises(NotSplittable, match="the result differs"):
        verify(model, wrong, program, (x,))


def test_blocks_have_names_that_users_know():
    found = blocks(cifar_resnet(20, 10), torch.randn(2, 3, 32, 32))
    assert found.stem == "relu" and found.single_path
    assert found.names == tuple(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3))
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64)
    assert blocks(vit, torch.randn(2, 3, 64, 64)).names == tuple(f"blocks.{i}" for i in range(12))
    vgg = blocks(torchvision.models.vgg11(num_classes=10), torch.randn(2, 3, 32, 32))
    assert vgg.names[:3] == ("features.2", "features.5", "features.7"), "weight layer, activation and pooling"


def test_train_and_eval_mode_are_recorded_apart():
    """Glue that looks at `self.training` is replayed for the mode that the network is in."""

    class Glue(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = nn.functional.dropout(self.first(x), 0.5, self.training)
            return self.second(x) if self.training else self.second(x) * 2

    model = Glue().eval()
    x = torch.randn(6, 4)
    split = split_model(model, x, cuts=["first"])
    assert torch.equal(chained(split, (x,)), model(x))
    model.train()
    torch.manual_seed(0)
    found = chained(split, (x,))
    torch.manual_seed(0)
    assert torch.equal(found, model(x))


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x * 2

    @staticmethod
    def backward(context, gradient):
        return gradient * 2


def test_checkpointing_around_blocks_is_kept():
    """As timm's flag does it: each block runs again in the backward pass, and saves its input only."""
    from infopro.memory import saved_storages

    def build(checkpointing):
        torch.manual_seed(0)
        model = timm.create_model(
            "vit_tiny_patch16_224", num_classes=10, img_size=64, depth=4, proj_drop_rate=0.2
        )
        model.set_grad_checkpointing(checkpointing)
        return split_model(model, torch.randn(2, 3, 64, 64), cuts=["blocks.1"])

    images, found = (torch.randn(3, 3, 64, 64),), {}
    for checkpointing in (False, True):
        split = build(checkpointing)
        torch.manual_seed(1)
        with saved_storages(split.model) as sizes:
            result = chained(split, images)
        result.square().mean().backward()
        gradients = [p.grad for p in split.parts[-1].parameters()]
        found[checkpointing] = (result, gradients, sum(sizes.values()))
    assert torch.equal(found[False][0], found[True][0])
    assert all(torch.equal(a, b) for a, b in zip(found[False][1], found[True][1], strict=True))
    assert found[True][2] < found[False][2] / 3


def test_checkpointing_around_a_cut_cannot_be_run_live():
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, depth=4)
    model.set_grad_checkpointing()
    with pytest.raises(NotSplittable, match=r"set_grad_checkpointing\(False\)"):
        split_model(model, torch.randn(2, 3, 64, 64), cuts=["blocks.1"], record=False)


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.third(self.second(Doubled.apply(self.first(x))))


def test_a_custom_autograd_function_between_blocks_runs_live():
    split = split_model(Custom(), torch.randn(4, 4), cuts=["second"])
    assert split.description.live and "gradients differ" in split.description.notes[0]


def test_a_custom_autograd_function_behind_a_cut_is_refused_not_mistrained():
    with pytest.raises(NotSplittable, match="reaches an earlier one"):
        split_model(Custom(), torch.randn(4, 4), cuts=["first"])


def test_autocast_is_part_of_what_is_recorded():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.randn(1, 4))
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = self.first(x)
            return self.second(x + self.position.to(x.dtype))

    model, x = Positions(), torch.randn(3, 4)
    split = split_model(model, x, cuts=["first"])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(chained(split, (x,)), model(x))


def test_a_batch_on_another_dimension_is_refused():
    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(4, 8)
            self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(3))

        def forward(self, x):
            x = self.embed(x).transpose(0, 1)
            for layer in self.layers:
                x = layer(x)
            return x.transpose(0, 1)

    with pytest.raises(BadSplit, match="not the batch"):
        split_model(SequenceFirst(), torch.randn(2, 5, 4), cuts=["layers.0"])


class DrawsInside(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (2 if random.random() > 0.5 else 1)


def test_what_blocks_draw_from_other_streams_is_theirs():
    model = nn.Sequential(nn.Linear(4, 4), DrawsInside(4, 4), nn.Linear(4, 4))
    assert not split_model(model, torch.randn(2, 4), cuts=["1"]).description.live


def test_compiled_networks_are_refused_with_the_remedy():
    with pytest.raises(NotSplittable, match="before compiling"):
        split_model(torch.compile(cifar_resnet(20, 10)), torch.randn(2, 3, 32, 32), num_modules=2)
