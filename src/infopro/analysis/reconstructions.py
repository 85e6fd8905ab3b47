"""What can still be seen of the input in the features of each block: decoders trained on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from infopro.heads import decoder
from infopro.local import LocalModel
from infopro.tasks import Task

__all__ = ["Reconstructions", "frozen_features", "own_reconstructions", "probe_reconstructions"]


@dataclass(frozen=True)
class Reconstructions:
    """One decoder's view of some images."""

    block: str  # whose output the decoder reads
    images: Tensor  # [N, C, H, W] in [0, 1]
    error: float  # mean binary cross-entropy per pixel on these images


@contextmanager
def frozen_features(
    model: nn.Module, names: Sequence[str]
) -> Iterator[Callable[[Tensor], dict[str, Tensor]]]:
    """While open, a function images -> {block name: its output}, in eval mode and without gradients."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            leaves = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.is_floating_point()]
            found[name] = max(leaves, key=lambda t: t.numel()).clone()  # the next block may write in place

        return hook

    @torch.no_grad()
    def run(images: Tensor) -> dict[str, Tensor]:
        found.clear()
        model(images)
        return dict(found)

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield run
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode


def own_reconstructions(local: LocalModel, images: Tensor) -> list[Reconstructions]:
    """What the decoders that InfoPro trained alongside the network make of `images` (normalised, [N, C, H, W])."""
    cuts = local.split.cuts
    with frozen_features(local.model, cuts) as features_of:
        features = features_of(images)
    found = []
    for cut, stage in zip(cuts, local.stages, strict=False):
        net = stage.heads["reconstruction"]
        found.append(_view(net, features[cut], local.task.to_unit(images), cut))
    return found


def probe_reconstructions(
    model: nn.Module,
    task: Task,
    *,
    blocks: Sequence[str],
    batches: Iterator[tuple[Tensor, Tensor]],
    images: Tensor,
    learning_rate: float = 0.01,
) -> list[Reconstructions]:
    """Train one decoder per block on the network's frozen features, all in one pass over `batches`.

    The decoders are of the form that InfoPro trains (`heads.decoder("auto")`), optimised by Adam.
    """
    with frozen_features(model, blocks) as features_of:
        shapes = {name: tuple(f.shape[1:]) for name, f in features_of(images[:2]).items()}
        nets = {n: _new_decoder(shapes[n], tuple(images.shape[1:]), images.device) for n in blocks}
        optimizer = torch.optim.Adam([p for net in nets.values() for p in net.parameters()], lr=learning_rate)
        for inputs, _ in batches:
            target, features = task.to_unit(inputs), features_of(inputs)
            optimizer.zero_grad()
            errors = [_cross_entropy(net(features[name]), target) for name, net in nets.items()]
            torch.stack(errors).sum().backward()
            optimizer.step()
        target, features = task.to_unit(images), features_of(images)
    return [_view(nets[name], features[name], target, name) for name in blocks]


def _new_decoder(
    feature_shape: tuple[int, ...], image_shape: tuple[int, ...], device: torch.device
) -> nn.Module:
    return decoder("auto", feature_shape=feature_shape, image_shape=image_shape).to(device)


@torch.no_grad()
def _view(net: nn.Module, features: Tensor, target: Tensor, block: str) -> Reconstructions:
    training = net.training
    net.eval()
    images = net(features)
    net.train(training)
    return Reconstructions(block, images, float(_cross_entropy(images, target)))


def _cross_entropy(images: Tensor, target: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy(images.float(), target.float())
