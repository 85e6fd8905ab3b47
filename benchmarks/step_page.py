"""Tables and plots of what step.py found, from its CSV file.

    python benchmarks/step_page.py

Writes benchmarks/results/step.md, and docs/images/step-NETWORK.png for every network that was measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from step_goals import Comparison, comparisons, goals
from step_methods import METHODS
from step_networks import NETWORKS
from step_plot import draw
from step_results import RESULTS, Row, read

from infopro.memory import format_bytes

IMAGES = Path(__file__).parent.parent / "docs" / "images"
INTRODUCTION = """\
# One training step: memory against time

Made by `python benchmarks/step.py`, `python benchmarks/step.py --predict` and
`python benchmarks/step_page.py`. Methods in bold type stand on the Pareto front: nothing measured needs less
memory without taking longer. A step is zero_grad, forward and backward pass, and SGD with momentum; weights
and images are channels-last, and cuts lie where `balance="memory"` puts them.

- **peak**: what the allocator handed out at most during a step, weights, gradients and momentum included.
  A predicted one is that of the step's tensors, without workspaces.
- **saved**: what autograd holds at once for the backward pass; of local methods the largest module's. Left
  out where tensors wait elsewhere than with autograd: checkpointing, offloading.
- **time**: median over the rounds of the ratio to an end-to-end step of the same round (least to greatest).
  End to end's own row is a second end-to-end network: its spread is the noise.
- **operations**: of the whole step, recomputation and heads included; those of compiled steps cannot be
  followed. **heads**: their forward operations, relative to the network's.
- **gradient**: accumulation is exact but for BatchNorm, which sees a part of the batch. Local methods have
  gradients of their own, and their accuracy falls as K grows. No table here shows accuracy.
- Checkpointing is `torch.utils.checkpoint`, which updates BatchNorm's running statistics in both runs; with
  local modules it is infopro's own, which does not.
- Offloading on a CPU copies within the same memory: it shows the cost of copying, and cannot save anything.
"""
MARKS = {True: "met", False: "**not met**", None: "note"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, default=RESULTS)
    parser.add_argument("--images", type=Path, default=IMAGES)
    options = parser.parse_args()
    found = comparisons(sorted(read(options.input), key=_order))
    page = options.input.with_suffix(".md")
    page.write_text("\n".join([INTRODUCTION, *_sections(found)]))
    print(page)
    for comparison in found:
        if comparison.points:
            first = comparison.rows[0]
            suffix = "" if first.device == "cpu" else f"-{first.device}"
            draw(comparison, _title(comparison), options.images / f"step-{first.network}{suffix}.png")


def _order(row: Row) -> tuple[int, int]:
    """By network and method, whenever they were run."""
    return [*NETWORKS, row.network].index(row.network), [*METHODS, row.method].index(row.method)


def _sections(found: Sequence[Comparison]) -> Iterator[str]:
    measured = [c for c in found if c.rows[0].kind == "measured"]
    if measured:
        yield "## Goals\n"
    for comparison in measured:
        yield f"{_title(comparison)}:\n"
        yield from (f"- {MARKS[met]}: {text}" for met, text in goals(comparison))
        yield ""
    for comparison in measured:
        yield from _section(comparison, MEASURED)
    for comparison in found:
        if comparison.rows[0].kind == "predicted":
            yield from _section(comparison, PREDICTED)


def _section(comparison: Comparison, columns: Columns) -> Iterator[str]:
    yield f"## {_title(comparison)}\n"
    yield f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"
    for row in comparison.rows:
        yield f"| {' | '.join(cell(comparison, row) for cell in columns.values())} |"
    first = comparison.rows[0]
    conditions = [first.processor, f"{first.threads} threads", first.versions, first.commit]
    yield f"\n{'; '.join(str(c) for c in conditions if c)}.\n"


def _title(comparison: Comparison) -> str:
    first = comparison.rows[0]
    device = {"cpu": "CPU", "cuda": "GPU"}.get(first.device, first.device)
    where = f"measured on a {device}" if first.kind == "measured" else "predicted for a GPU"
    network = NETWORKS[first.network].title if first.network in NETWORKS else first.network
    return f"{network}, batch {first.batch_size}, {first.precision}, {where}"


Columns = dict[str, Callable[[Comparison, Row], str]]


def _method(comparison: Comparison, row: Row) -> str:
    on_front = any(row is point[0] for point in comparison.front)
    return f"**{row.method}**" if on_front else row.method


def _peak(comparison: Comparison, row: Row) -> str:
    if row.peak_bytes is None:
        return f"did not run: {(row.error or '').split(';')[0]}".replace("|", "/")
    return format_bytes(row.peak_bytes)


def _time(comparison: Comparison, row: Row) -> str:
    if row.time_ratio is None:
        return "" if row.peak_bytes is None else row.error or ""
    return f"{row.time_ratio:.2f} ({row.time_ratio_min:.2f} to {row.time_ratio_max:.2f})"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


SHARED: Columns = {
    "method": _method,
    "gradient": lambda c, r: r.gradient,
    "peak": _peak,
    "÷ end to end": lambda c, r: _number(c.memory(r), ".2f"),
}
MEASURED: Columns = {
    **SHARED,
    "saved": lambda c, r: "" if r.saved_bytes is None else format_bytes(r.saved_bytes),
    "time ÷ end to end": _time,
    "images/s": lambda c, r: _number(r.images_per_second, ".1f"),
    "operations ÷ end to end": lambda c, r: _number(c.operations(r), ".2f"),
    "heads": lambda c, r: _number(r.head_share, ".1%"),
}
PREDICTED: Columns = {
    **SHARED,
    "operations ÷ end to end": lambda c, r: _number(c.operations(r), ".2f"),
}


if __name__ == "__main__":
    main()
