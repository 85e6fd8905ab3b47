"""What the paper's figures say, as differences between two methods, and what three seeds say to each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from infopro.analysis import Analysis, BlockInformation, input_information
from infopro.report.spread import Spread, paired

__all__ = ["CLAIMS", "Claim", "Run", "Verdict", "judge"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trained and, where K is the largest or 1, analysed network of the study."""

    method: str
    num_modules: int
    seed: int
    test_error: float  # %, after the last epoch
    analysis: Analysis | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`left - right` of one quantity is above 0."""

    figure: str  # what the paper shows it in, or what it follows from
    text: str
    left: str
    right: str
    quantity: Callable[[Run], float | None]  # None: not measured on that run
    unit: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A claim beside its measurement at one K."""

    claim: Claim
    num_modules: int
    difference: Spread

    @property
    def word(self) -> str:
        """Whether the 95 % interval of the paired difference leaves out 0, and on which side it lies."""
        half = self.difference.half_width
        if half is None or abs(self.difference.mean) <= half:
            return "not decided"
        return "yes" if self.difference.mean > 0 else "no, the opposite"


def judge(runs: Sequence[Run]) -> list[Verdict]:
    """Every claim at every K at which both of its methods were measured; end to end stands beside each K."""
    found = []
    for claim in CLAIMS:
        for k in sorted({run.num_modules for run in runs} - {1}):
            left, right = (_by_seed(runs, name, k, claim.quantity) for name in (claim.left, claim.right))
            difference = paired(left, right)
            if difference is not None:
                found.append(Verdict(claim=claim, num_modules=k, difference=difference))
    return found


def _by_seed(
    runs: Sequence[Run], method: str, num_modules: int, quantity: Callable[[Run], float | None]
) -> Mapping[int, float]:
    k = 1 if method == "end-to-end" else num_modules
    found = {r.seed: quantity(r) for r in runs if r.method == method and r.num_modules == k}
    return {seed: value for seed, value in found.items() if value is not None}


def _error(run: Run) -> float | None:
    return run.test_error


def _over(
    part: Callable[[Sequence[BlockInformation]], Sequence[BlockInformation]],
    number: Callable[[Analysis, BlockInformation], float],
) -> Callable[[Run], float | None]:
    """The mean over some of the blocks; the image itself is none of them."""

    def of(run: Run) -> float | None:
        if run.analysis is None:
            return None
        blocks = part([block for block in run.analysis.blocks if block.depth])
        return statistics.fmean(number(run.analysis, block) for block in blocks)

    return of


def _first_third(blocks: Sequence[BlockInformation]) -> Sequence[BlockInformation]:
    return blocks[: max(1, len(blocks) // 3)]


def _last(blocks: Sequence[BlockInformation]) -> Sequence[BlockInformation]:
    return blocks[-1:]


def _all_but_last(blocks: Sequence[BlockInformation]) -> Sequence[BlockInformation]:
    return blocks[:-1]


def _linear(analysis: Analysis, block: BlockInformation) -> float:
    return statistics.fmean(block.linear_error)


def _input(analysis: Analysis, block: BlockInformation) -> float:
    return statistics.fmean(input_information(block, analysis.references))


def _task(analysis: Analysis, block: BlockInformation) -> float:
    return statistics.fmean(block.task_information["large"])


def _nuisance(analysis: Analysis, block: BlockInformation) -> float:
    return sum(statistics.fmean(values) for values in block.nuisance_information.values())


def _has_nuisance(quantity: Callable[[Run], float | None]) -> Callable[[Run], float | None]:
    def of(run: Run) -> float | None:
        known = run.analysis is not None and bool(run.analysis.references.nuisance_entropy)
        return quantity(run) if known else None

    return of


_ERROR, _LINEAR, _INPUT = "error against K", "linear separability", "I(h, x)"
_TASK, _NUISANCE = "I(h, y)", "the claim behind the bound"
_NATS, _POINTS = "nats", "points"


def _claim(figure: str, unit: str, quantity: Callable[[Run], float | None]) -> Callable[..., Claim]:
    def make(text: str, left: str, right: str) -> Claim:
        return Claim(figure=figure, text=text, left=left, right=right, quantity=quantity, unit=unit)

    return make


_errs = _claim(_ERROR, _POINTS, _error)
_early = _claim(_LINEAR, _POINTS, _over(_first_third, _linear))
_late = _claim(_LINEAR, _POINTS, _over(_last, _linear))
_sees = _claim(_INPUT, f"{_NATS} per image", _over(_all_but_last, _input))
_knows = _claim(_TASK, _NATS, _over(_last, _task))
_distracts = _claim(_NUISANCE, _NATS, _has_nuisance(_over(_all_but_last, _nuisance)))

CLAIMS: tuple[Claim, ...] = (
    _errs("greedy is worse than end to end", "greedy", "end-to-end"),
    _errs("DGL's larger head is better than greedy's", "greedy", "dgl"),
    _errs("InfoPro (softmax) is better than greedy", "greedy", "infopro-softmax"),
    _errs("InfoPro (softmax) is better than DGL", "dgl", "infopro-softmax"),
    _errs("contrast is better than softmax", "infopro-softmax", "infopro-contrast"),
    _errs("reconstruction helps: λ1 = 0 is worse", "no-reconstruction", "infopro-softmax"),
    _early("greedy's first third separates better than end to end's", "end-to-end", "greedy"),
    _late("greedy's last block separates worse than end to end's", "greedy", "end-to-end"),
    _early("InfoPro's first third separates worse than greedy's", "infopro-softmax", "greedy"),
    _late("InfoPro's last block separates better than greedy's", "greedy", "infopro-softmax"),
    _sees("greedy keeps less of the image than end to end", "end-to-end", "greedy"),
    _sees("InfoPro keeps more of the image than greedy", "infopro-softmax", "greedy"),
    _sees("reconstruction is what keeps it: λ1 = 0 keeps less", "infopro-softmax", "no-reconstruction"),
    _knows("greedy's last block knows less of the class than end to end's", "end-to-end", "greedy"),
    _knows("InfoPro's last block knows more of the class than greedy's", "infopro-softmax", "greedy"),
    _distracts("InfoPro drops more nuisance than greedy", "greedy", "infopro-softmax"),
    _distracts(
        "InfoPro drops more nuisance than without reconstruction", "no-reconstruction", "infopro-softmax"
    ),
    _distracts("InfoPro drops more nuisance than end to end", "end-to-end", "infopro-softmax"),
)
