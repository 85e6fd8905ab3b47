import pytest
import timm
import torch
import torchvision
from torch import nn

from infopro.errors import BadInput, BadSplit, NotSplittable
from infopro.models import cifar_resnet
from infopro.split import blocks, split_model
from infopro.split.part import Part


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


def test_a_changed_branch_is_refused_not_replayed():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x, mask):
            x = self.first(x)
            return self.second(x) if mask.all() else self.second(x * mask)

    split = split_model(Branch(), (torch.randn(2, 4), torch.ones(2, 1)), cuts=["first"])
    with pytest.raises(NotSplittable, match="branch changed"):
        chained(split, (torch.randn(2, 4), torch.zeros(2, 1)))


def test_batch_dependent_code_is_refused():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            x = self.first(x)
            for _ in range(x.shape[0]):
                x = x + 1
            return self.second(x)

    with pytest.raises(NotSplittable, match="depend on the batch size"):
        split_model(Growing(), torch.randn(2, 4), cuts=["first"])


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


def test_too_many_modules_and_wrong_inputs_are_explained():
    model = cifar_resnet(20, 10)
    with pytest.raises(BadSplit, match=r"got num_modules=11; allowed: 1 to 10"):
        split_model(model, torch.randn(2, 3, 32, 32), num_modules=11)
    with pytest.raises(BadSplit, match="at least one module"):
        split_model(model, torch.randn(2, 3, 32, 32), num_modules=0)
    with pytest.raises(BadInput, match=r"cannot take the example input: got shapes \[\(2, 1, 32, 32\)\]"):
        split_model(model, torch.randn(2, 1, 32, 32), num_modules=2)
    with pytest.raises(BadInput, match="no tensor with a batch dimension"):
        split_model(model, "image.png", num_modules=2)


def test_a_wrong_recording_would_be_found():
    """The test of the test: verification must fail on parts that compute something else."""
    from infopro.split.verify import verify

    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    x = torch.randn(4, 4)
    split = split_model(model, x, cuts=["0"])
    program = split._programs[next(iter(split._programs))]

    class Wrong(Part):
        def result(self, flow):
            return super().result(flow) * 1.0001

    wrong = [split.parts[0], Wrong(model, program.parts[1], 1)]
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


def test_a_custom_autograd_function_between_blocks_is_refused_not_mistrained():
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.third(self.second(Doubled.apply(self.first(x))))

    with pytest.raises(NotSplittable, match="gradients differ"):
        split_model(Custom(), torch.randn(4, 4), cuts=["second"])


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


def test_other_random_streams_are_left_alone_and_noted():
    import random

    class LayerDrop(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            random.random()
            return self.second(self.first(x))

    state = random.getstate()
    notes = split_model(LayerDrop(), torch.randn(2, 4), cuts=["first"]).description.notes
    assert random.getstate() == state
    assert any("Python's or NumPy's random numbers" in note for note in notes)


def test_compiled_networks_are_refused_with_the_remedy():
    with pytest.raises(NotSplittable, match="before compiling"):
        split_model(torch.compile(cifar_resnet(20, 10)), torch.randn(2, 3, 32, 32), num_modules=2)
