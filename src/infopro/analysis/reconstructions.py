"""What can still be seen of the input in the features of each block: decoders trained on frozen features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from infopro.errors import BadInput, UnknownName
from infopro.heads import decoder
from infopro.local import LocalModel
from infopro.objectives import reconstruction_loss
from infopro.tasks import Task
from infopro.training.evaluation import evaluation_mode

__all__ = ["Reconstructions", "frozen_features", "own_reconstructions", "probe_reconstructions"]

_CHUNK = 256  # images decoded at once: decoders enlarge many channels to full size


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
    """While open, a function images -> {block name: its output}, in eval mode and without gradients.

    Raises:
        UnknownName: a name that no module of the network has.
    """
    _check_names(model, names)
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

    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(keep(name))
            stack.callback(handle.remove)
        yield run


def _check_names(model: nn.Module, names: Sequence[str]) -> None:
    known = [name for name, _ in model.named_modules() if name]
    for name in names:
        if name not in known:
            raise UnknownName("block", name, known)


def own_reconstructions(local: LocalModel, images: Tensor) -> list[Reconstructions]:
    """What the decoders that InfoPro trained with the network make of `images` (normalised, [N, C, H, W]).

    Raises:
        BadInput: another objective, which has no decoders.
    """
    cuts = local.split.cuts
    heads = [stage.heads for stage in local.stages[:-1]]
    if not all("reconstruction" in head for head in heads):
        raise BadInput(
            "the local model has no decoders",
            got=f"heads {sorted({name for head in heads for name in head})}",
            remedy="train with InfoPro, or train decoders on its features with probe_reconstructions",
        )
    nets = {cut: head["reconstruction"] for cut, head in zip(cuts, heads, strict=True)}
    with frozen_features(local.model, cuts) as features_of:
        return _views(nets, features_of, local.task, images)


def probe_reconstructions(
    model: nn.Module,
    task: Task,
    *,
    blocks: Sequence[str],
    batches: Iterable[tuple[Tensor, Tensor]],
    images: Tensor,
    decoder_name: str = "auto",
    learning_rate: float = 0.01,
) -> list[Reconstructions]:
    """Train one decoder per block on the network's frozen features, all in one pass over `batches`.

    Args:
        images: what is reconstructed in the end, normalised, [N, C, H, W].
        decoder_name: their form, of `infopro.heads.list_decoders()`; the optimizer is Adam.
    """
    with frozen_features(model, blocks) as features_of:
        shapes = {name: tuple(f.shape[1:]) for name, f in features_of(images[:2]).items()}
        nets = {
            name: decoder(decoder_name, feature_shape=shapes[name], image_shape=tuple(images.shape[1:]))
            for name in blocks
        }
        parameters = [p for net in nets.values() for p in net.to(images.device).parameters()]
        optimizer = torch.optim.Adam(parameters, lr=learning_rate)
        for inputs, _ in batches:
            target, features = task.to_unit(inputs), features_of(inputs)
            optimizer.zero_grad()
            losses = [reconstruction_loss(net(features[name]), target) for name, net in nets.items()]
            torch.autograd.backward(torch.stack(losses).sum())
            optimizer.step()
        return _views(nets, features_of, task, images)


@torch.no_grad()
def _views(
    nets: Mapping[str, nn.Module],
    features_of: Callable[[Tensor], dict[str, Tensor]],
    task: Task,
    images: Tensor,
) -> list[Reconstructions]:
    decoded: dict[str, list[Tensor]] = {name: [] for name in nets}
    error = dict.fromkeys(nets, 0.0)
    with evaluation_mode(*nets.values()):
        for chunk in torch.split(images, _CHUNK):
            features, target = features_of(chunk), task.to_unit(chunk)
            for name, net in nets.items():
                decoded[name].append(net(features[name]))
                error[name] += float(reconstruction_loss(decoded[name][-1], target)) * len(chunk)
    return [Reconstructions(name, torch.cat(decoded[name]), error[name] / len(images)) for name in nets]
