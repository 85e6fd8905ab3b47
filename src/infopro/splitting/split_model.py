"""A network in K parts, with one recording per kind of input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from infopro.errors import BadSplit, NotReplayable, NotSplittable, NotYetSupported
from infopro.splitting.blocks import Blocks, find_blocks
from infopro.splitting.depth import equal_depth_cuts
from infopro.splitting.describe import describe_recorded
from infopro.splitting.inputs import as_inputs, check_cut_names, check_network
from infopro.splitting.live_split import LiveSplit
from infopro.splitting.part import Flow, Part, start
from infopro.splitting.program import Guard, Program, build, owned_tensors
from infopro.splitting.record import autocast_state
from infopro.splitting.replay import holds
from infopro.splitting.spans import Recompute
from infopro.splitting.verify import verify

__all__ = ["SplitModel", "blocks", "refuse_live", "split_model"]

MOST_BRANCHES = 8  # recordings of one kind of input


class SplitModel:
    """The caller's network as K parts that share its modules; `parts` run in a row compute what it computes.

    A recording belongs to one kind of input (sizes besides the batch, dtypes, train or eval mode, branches
    taken on input values); another kind is recorded and verified when it first comes.

    Args:
        recompute: what runs again in the backward pass instead of being kept.
        verified: False is for fake tensors: nothing is compared, branches are those first recorded.
        first: what was recorded of a network that this one is a copy of.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Any, ...],
        *,
        cuts: Sequence[str],
        recompute: Recompute = (),
        verified: bool = True,
        first: Program | None = None,
    ):
        self.model = model
        self.cuts = tuple(cuts)
        self._recompute = recompute
        self._verified = verified
        check_cut_names(model, self.cuts)
        first = first or build(model, inputs, cuts=self.cuts, recompute=recompute)
        self.parts = tuple(
            Part(model, index, blocks=program.blocks, tensors=owned_tensors(program))
            for index, program in enumerate(first.parts)
        )
        self._programs = {_kind(model, inputs): [first]}
        notes = verify(model, self.parts, first, inputs) if verified else []
        self.description = describe_recorded(first, self.cuts, self.parts, notes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}}  # a copy records anew: programs hold functions of torch

    def start(self, inputs: tuple[Any, ...]) -> Flow:
        """What the first part reads for this batch.

        Raises:
            NotReplayable: forward branches on input values in more ways than are worth recording.
        """
        known = self._programs.setdefault(_kind(self.model, inputs), [])
        for program in known:
            flow = start(program, inputs)
            if not self._verified or all(self._holds(guard, flow) for guard in program.guards):
                return flow
        if len(known) == MOST_BRANCHES:
            raise NotReplayable(
                "forward branches on the values of its inputs in ever new ways",
                got=", ".join(sorted({g.read.target.__name__ for g in known[0].guards})),
                remedy="pass record=False to localize: the network's own forward then runs in one process",
            )
        known.append(self._record(inputs))
        return start(known[-1], inputs)

    def _holds(self, guard: Guard, flow: Flow) -> bool:
        return holds(guard, flow.values, self.model, flow.batch_size, flow.device)

    def _record(self, inputs: tuple[Any, ...]) -> Program:
        program = build(self.model, inputs, cuts=self.cuts, recompute=self._recompute)
        if self._verified:
            verify(self.model, self.parts, program, inputs)
        return program


def split_model(
    model: nn.Module,
    example_input: Any,
    *,
    cuts: Sequence[str] | None = None,
    num_modules: int | None = None,
    recompute: Recompute = (),
    record: bool = True,
) -> SplitModel | LiveSplit:
    """Split any network behind the blocks named in `cuts`, or into `num_modules` of equal depth.

    The network's own forward decides: a real run of it is recorded (at three small batch sizes) and replayed
    module by module with the caller's own blocks. The parts are compared with the network before they are
    returned. A forward that cannot be replayed (branches on activations, code that depends on the batch,
    random decisions of Python) is run live instead, as it is; `description.live` and its notes say so.

    Args:
        example_input: a tensor [N, ...] or a tuple of the network's inputs; only sizes and dtypes matter.
        recompute: stretches of blocks, each (the block before it or "", its last one), that run again in the
            backward pass instead of being kept.
        record: False runs the network live without trying to record it.

    Raises:
        BadSplit: unknown, repeated or unordered cuts; more modules than blocks.
        BadInput: an example input that the network cannot take.
        NotSplittable: a forward that can neither be replayed nor be run live soundly.
        NotYetSupported: something to recompute in a network that runs live.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> split_model(net, torch.zeros(2, 4), cuts=["1"]).description.blocks
        (('0', '1'), ('2',))
    """
    inputs = as_inputs(example_input)
    cuts = [cuts] if isinstance(cuts, str) else cuts
    if (cuts is None) == (num_modules is None):
        raise BadSplit("give either cuts or num_modules", got=f"cuts={cuts}, num_modules={num_modules}")
    check_network(model, inputs)
    if cuts is None:
        assert num_modules is not None
        cuts = equal_depth_cuts(model, inputs, num_modules)
    try:
        return _recorded_or_live(model, inputs, cuts, recompute=recompute, record=record)
    except (BadSplit, NotSplittable) as error:
        near = _sound_cuts_near(model, inputs, cuts)
        raise type(error)(str(error), remedy=f"sound cuts nearby: {', '.join(near)}") from error


def _recorded_or_live(
    model: nn.Module, inputs: tuple[Any, ...], cuts: Sequence[str], *, recompute: Recompute, record: bool
) -> SplitModel | LiveSplit:
    reason = "as asked for"
    if record:
        try:
            return SplitModel(model, inputs, cuts=cuts, recompute=recompute)
        except NotReplayable as error:
            reason = str(error)
    refuse_live(recompute, reason)
    return LiveSplit(model, inputs, cuts=cuts, reason=reason)


def refuse_live(recompute: Recompute, reason: str) -> None:
    """Raises where something is to run again in a network that cannot be recorded, for this reason."""
    if recompute:
        raise NotYetSupported(
            "a network that runs live cannot be checkpointed block by block",
            got=reason,
            remedy="leave checkpoint out, or switch the network's own checkpointing on",
        )


def _sound_cuts_near(model: nn.Module, inputs: tuple[Any, ...], cuts: Sequence[str]) -> list[str]:
    """For each cut the blocks before and behind it, in the order in which the network names them."""
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    sound = find_blocks(model, inputs).units[:-1]
    near: set[str] = set()
    for cut in cuts:
        position = order.get(cut, len(order) // 2)
        before = [name for name in sound if order[name] < position]
        behind = [name for name in sound if order[name] >= position]
        near |= {*before[-1:], *behind[:1]}
    return [name for name in sound if name in near] or ["none"]


def blocks(model: nn.Module, example_input: Any) -> Blocks:
    """The blocks of a network, in order of execution: where `cuts` may lie."""
    return find_blocks(model, as_inputs(example_input))


def _kind(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    tensors = [(tuple(x.shape[1:]), x.dtype) for x in tree_leaves(inputs) if isinstance(x, Tensor)]
    modes = tuple(module.training for module in model.modules())
    return (modes, autocast_state(), *tensors)
