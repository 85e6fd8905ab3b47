"""Networks of many families, made small: their parts are the network, whichever way it is written."""

import copy
import io
import multiprocessing
import runpy
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn
from torch.utils._pytree import tree_flatten
from torchvision import models

from infopro.splitting import blocks, split_model

OTHER_PROCESS = "the other process"


class UNet(nn.Module):
    """An encoder whose maps of every resolution are read again by the decoder."""

    def __init__(self, channels=(8, 12, 16, 20)):
        super().__init__()
        wider = zip((3, *channels), channels, strict=False)
        self.down = nn.ModuleList(_convolution(inside, outside) for inside, outside in wider)
        narrower = zip(channels[:0:-1], channels[-2::-1], strict=True)
        self.up = nn.ModuleList(_convolution(inside + outside, outside) for inside, outside in narrower)
        self.head = nn.Conv2d(channels[0], 2, 1)

    def forward(self, x):
        skips = []
        for index, block in enumerate(self.down):
            x = block(x if index == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for block in self.up:
            skip = skips[-2]
            skips.pop()
            x = block(torch.cat([nn.functional.interpolate(x, size=skip.shape[2:]), skip], 1))
        return self.head(x)


def _convolution(inside, outside):
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Conv2d(outside, outside, 3, padding=1),
        nn.BatchNorm2d(outside),
    )


def of_timm(name, side=64, **options):
    return lambda: timm.create_model(name, num_classes=10, **options), side


def of_torchvision(name, side=64, **options):
    return lambda: models.get_model(name, num_classes=10, **options), side


SMALL = {"depth": 4, "embed_dim": 48, "img_size": 64}
PYRAMID = {"depths": (2, 2, 2, 2), "embed_dim": 24, "num_heads": (1, 2, 3, 4)}
FAMILIES = {
    "u-net": (UNet, 32),
    "timm beit": of_timm("beit_base_patch16_224", num_heads=2, drop_path_rate=0.2, **SMALL),
    "timm byobnet": of_timm("test_byobnet"),
    "timm cait": of_timm("cait_xxs24_224", num_heads=2, **SMALL),
    "timm coat": of_timm("coat_tiny", 32, img_size=32, embed_dims=(32,) * 4),
    "timm convnext": of_timm("test_convnext", drop_path_rate=0.2),
    "timm crossvit": of_timm("crossvit_9_240", 240, embed_dim=(16, 32), num_heads=(2, 2)),
    "timm dla": of_timm("dla46_c", drop_rate=0.1),
    "timm efficientnet": of_timm("test_efficientnet", drop_path_rate=0.2),
    "timm eva": of_timm("eva02_tiny_patch14_224", 56, **{**SMALL, "img_size": 56}, num_heads=2),
    "timm ghostnet": of_timm("ghostnet_050"),
    "timm hrnet": of_timm("hrnet_w18_small"),
    "timm levit": of_timm("levit_128s", img_size=64),
    "timm mambaout": of_timm("test_mambaout"),
    "timm maxxvit": of_timm("test_maxvit", 160),
    "timm nfnet": of_timm("test_nfnet"),
    "timm rdnet": of_timm(
        "rdnet_tiny",
        num_init_features=16,
        growth_rates=(8, 8, 8, 8),
        num_blocks_list=(2, 2, 2, 2),
        is_downsample_block=(None, True, True, True),
    ),
    "timm regnet": of_timm("regnety_002"),
    "timm resnet": of_timm("test_resnet", drop_path_rate=0.2),
    "timm swin": of_timm("swin_tiny_patch4_window7_224", 56, img_size=56, drop_path_rate=0.2, **PYRAMID),
    "timm swin v2": of_timm("swinv2_tiny_window8_256", img_size=64, **PYRAMID),
    "timm tnt": of_timm(
        "tnt_s_legacy_patch16_224", inner_dim=8, num_heads_inner=2, num_heads_outer=4, **SMALL
    ),
    "timm vit": of_timm("test_vit", drop_path_rate=0.2),
    "timm xcit": of_timm("xcit_nano_12_p16_224", num_heads=2, **SMALL),
    "torchvision deeplabv3": of_torchvision(
        "deeplabv3_mobilenet_v3_large", weights_backbone=None, aux_loss=True
    ),
    "torchvision densenet": (lambda: models.DenseNet(8, (2, 2, 2, 2), 16, drop_rate=0.1, num_classes=10), 64),
    "torchvision googlenet": of_torchvision("googlenet", init_weights=False),
    "torchvision lraspp": of_torchvision("lraspp_mobilenet_v3_large", weights_backbone=None),
    "torchvision mobilenet": of_torchvision("mobilenet_v3_small"),
    "torchvision shufflenet": of_torchvision("shufflenet_v2_x0_5"),
    "torchvision squeezenet": of_torchvision("squeezenet1_1"),
    "torchvision vit": (lambda: models.VisionTransformer(32, 8, 4, 2, 32, 64, 0.1, num_classes=10), 32),
}


def small(family):
    build, side = FAMILIES[family]
    torch.manual_seed(0)
    return build().train(), lambda size: torch.randn(size, 3, side, side)


def loss_of(result):
    """The squared distance from 1: heads that begin with 0 have a gradient, too."""
    return torch.stack([(tensor - 1).square().mean() for tensor in tree_flatten(result)[0]]).sum()


def gradients(loss, parameters):
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return {id(p): gradient for p, gradient in zip(parameters, found, strict=True) if gradient is not None}


def after(model, run):
    """What a seeded run returns, and the buffers that it leaves; the network gets its own back."""
    before = [buffer.clone() for buffer in model.buffers()]
    torch.manual_seed(7)
    result = run()
    buffers = [buffer.clone() for buffer in model.buffers()]
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)
    return result, buffers


def isolated_run(split, images):
    """The parts in a row; each one's loss must reach parameters of its own, and of its own only."""
    flow, everything = split.start((images,)), list(split.model.parameters())
    for part in split.parts:
        flow = part(flow.detached())
        last = part is split.parts[-1]
        features = part.result(flow) if last else part.boundary(flow)
        reached = gradients(loss_of(features), everything)
        assert reached and reached.keys() <= {id(p) for p in part.parameters()}
    return features, reached


def whole_run(model, images, parameters):
    result = model(images)
    return result, gradients(loss_of(result), parameters)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_are_the_network(family):
    model, images_of = small(family)
    keys, identities = list(model.state_dict()), [id(t) for t in (*model.parameters(), *model.buffers())]
    split = split_model(model, images_of(2), num_modules=3)
    assert not split.description.live
    images = images_of(3)

    earlier = {id(p) for part in split.parts[:-1] for p in part.parameters()}
    last = [p for p in split.parts[-1].parameters() if id(p) not in earlier]

    (found, own), buffers_found = after(model, lambda: isolated_run(split, images))
    (expected, of_network), buffers = after(model, lambda: whole_run(model, images, last))

    (lefts, left_structure), (rights, right_structure) = tree_flatten(expected), tree_flatten(found)
    assert left_structure == right_structure
    assert all(torch.equal(left, right) for left, right in zip(lefts, rights, strict=True))
    assert all(torch.equal(left, right) for left, right in zip(buffers, buffers_found, strict=True))
    assert of_network and all(torch.equal(gradient, own[p]) for p, gradient in of_network.items())
    assert list(model.state_dict()) == keys
    assert [id(t) for t in (*model.parameters(), *model.buffers())] == identities


# What some families do, in the smallest network that does it.


class TwoPaths(nn.Module):
    """Parallel paths of which a block passes one on as it is, as CoaT's do."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, wide, narrow):
            return wide, self.layer(narrow)

    def __init__(self):
        super().__init__()
        self.widen, self.narrow = nn.Linear(4, 8), nn.Linear(4, 4)
        self.block, self.last = self.Block(), nn.Linear(12, 2)

    def forward(self, x):
        wide, narrow = self.block(self.widen(x), self.narrow(x))
        return self.last(torch.cat([wide, narrow], 1))


def test_a_module_learns_from_what_it_makes_not_from_what_it_passes_on():
    split = split_model(TwoPaths(), torch.randn(2, 4), cuts=["narrow", "block"])
    assert split.description.boundary_shapes == ((4,), (4,)), "of the block's results the narrow one"
    isolated_run(split, torch.randn(3, 4))


class Auxiliary(nn.Module):
    """A second head that runs in train mode only, in the middle of forward, as GoogLeNet has it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.auxiliary = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        self.third, self.fourth, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        auxiliary = self.auxiliary(x) if self.training else None
        x = self.last(self.fourth(self.third(x).relu()).relu())
        return x if auxiliary is None else (auxiliary, x)


def test_no_cut_falls_into_an_auxiliary_head():
    model, images = Auxiliary(), torch.randn(3, 4)
    assert blocks(model, images).names == ("first", "second", "third", "fourth", "last")
    split = split_model(model, images, num_modules=5)
    model.eval()
    assert torch.equal(isolated_run(split, images)[0], model(images))


class SharedBias(nn.Module):
    """Attention with a trained bias that the first block makes for all, as T5 has it."""

    class Block(nn.Module):
        def __init__(self, *, makes_bias):
            super().__init__()
            self.layer = nn.Linear(8, 8)
            self.table = nn.Embedding(5, 2) if makes_bias else None

        def forward(self, x, bias=None):
            if bias is None:
                bias = self.table(torch.arange(25).reshape(5, 5) % 5).permute(2, 0, 1)[None]
            heads = self.layer(x).unflatten(2, (2, 4)).transpose(1, 2)
            mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias)
            return x + mixed.transpose(1, 2).flatten(2), bias

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(self.Block(makes_bias=index == 0) for index in range(4))

    def forward(self, x):
        bias = None
        for block in self.blocks:
            x, bias = block(x, bias)
        return x


def test_kernels_that_are_chosen_by_what_needs_a_gradient_may_round_otherwise():
    torch.manual_seed(0)
    model = SharedBias()
    split = split_model(model, torch.randn(2, 5, 8), num_modules=2)
    assert not split.description.live
    images = torch.randn(3, 5, 8)
    found, expected = isolated_run(split, images)[0], model(images)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found, expected) or any("round in another way" in n for n in split.description.notes)
    with torch.no_grad():
        flow = split.start((images,))
        for part in split.parts:
            flow = part(flow)
        assert torch.equal(split.parts[-1].result(flow), model(images))


class Remembering(nn.Module):
    """Keeps in eval mode what follows from parameters and buffers, as LeViT does."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(3))
            self.register_buffer("index", torch.tensor([0, 1, 2, 0]))
            self.kept = None

        def forward(self, x):
            if self.training or self.kept is None:
                self.kept = self.table[self.index]
            return x * self.kept

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(self.Block(), self.Block(), nn.Linear(4, 2))

    def forward(self, x):
        return self.blocks(x)


def test_buffers_that_did_not_change_are_not_written():
    model, images = Remembering().eval(), torch.randn(3, 4)
    split = split_model(model, torch.randn(2, 4), cuts=["blocks.0", "blocks.1"])
    assert torch.equal(isolated_run(split, images)[0], model(images))
    assert [block.index._version for block in model.blocks[:2]] == [0, 0]


# Parts in other places than the rest.

DEVICE_FAMILIES = ["u-net", "timm swin", "timm crossvit", "torchvision densenet", "torchvision vit"]


@pytest.mark.parametrize("family", DEVICE_FAMILIES)
def test_parts_run_on_another_device_than_the_one_before(family):
    """No GPU is needed: on "meta" there are shapes only, and a tensor left behind on the CPU is an error."""
    model, images_of = small(family)
    split = copy.deepcopy(split_model(model, images_of(2), num_modules=3))
    images = images_of(3)
    flow = split.start((images,))  # records: the copy has no recording yet
    first, *others = split.parts
    flow = first(flow)
    for part in others:
        part.to("meta")
        flow = part(flow.to("meta").detached())
        if part is not others[-1]:
            boundary = part.boundary(flow)
            assert boundary.is_meta
            assert boundary.shape == (3, *split.description.boundary_shapes[part.index])
    result = others[-1].result(flow)
    assert result.is_meta and result.shape == model(images).shape
    assert all(p.is_meta for part in others for p in part.parameters())
    assert not any(p.is_meta for p in model.parameters()), "the original stays where it is"


def shared_network():
    """What both processes build for themselves, from a seed."""
    model, images_of = small("timm swin")
    return model, images_of(2)


def rest_of_the_network(connection):
    """The other process: it gets the cuts and what crosses the second, never the first two parts' work."""
    torch.set_num_threads(1)
    cuts, images, values, random_state = received(connection)
    model, example = shared_network()
    split = split_model(model, example, cuts=cuts)
    flow = replace(split.start((images,)), values=values)
    torch.set_rng_state(random_state)
    for part in split.parts[2:]:
        flow = part(flow.detached())
    result = split.parts[-1].result(flow)
    loss_of(result).backward()
    send(connection, (result, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))


def send(connection, values):
    """As bytes: a tensor in shared memory would have to outlive its process."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    connection.send_bytes(buffer.getvalue())


def received(connection):
    return torch.load(io.BytesIO(connection.recv_bytes()))


def test_two_processes_that_share_the_parts_compute_what_one_computes():
    model, example = shared_network()
    split = split_model(model, example, num_modules=4)
    images = torch.randn(3, *example.shape[1:])
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # a function of the standard library: the other process need not know how pytest imports this file
    start = {"init_globals": {"connection": theirs}, "run_name": OTHER_PROCESS}
    process = context.Process(target=runpy.run_path, args=(__file__,), kwargs=start)
    process.start()
    torch.manual_seed(7)
    flow = split.start((images,))
    for part in split.parts[:2]:
        flow = part(flow.detached())
    send(ours, (split.cuts, images, flow.detached().values, torch.get_rng_state()))
    result, gradients_found = received(ours)
    process.join(timeout=30)
    assert process.exitcode == 0
    torch.manual_seed(7)
    expected = model(images)
    loss_of(expected).backward()
    assert torch.equal(result, expected)
    own = {id(p) for p in split.parts[-1].parameters()}
    of_last = {name: p.grad for name, p in model.named_parameters() if id(p) in own}
    assert of_last and gradients_found.keys() == of_last.keys()
    assert all(torch.equal(gradients_found[name], gradient) for name, gradient in of_last.items())


if __name__ == OTHER_PROCESS:
    rest_of_the_network(connection)  # noqa: F821, given by run_path
