"""The rows that split_coverage.py finds, and the page that they make."""

from __future__ import annotations

import csv
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path

from infopro.training.environment import processor_name

__all__ = ["CHECKS", "Row", "page", "read_rows", "totals", "write_rows"]

PACKAGES = ("torch", "torchvision", "timm", "segmentation-models-pytorch", "transformers")
CHECKS = {  # in the order in which they are made
    "localize": "`infopro.localize` takes the network as it is.",
    "train": "The parts in a row, each on the detached result of the one before, return what the network"
    " returns: bit for bit, in train mode, under a fixed random state, at batch size 3 (the example has 2).",
    "buffers": "Every buffer, such as BatchNorm's statistics, is the same after that run, bit for bit.",
    "gradients": "The parameters that only the last part uses get the gradients of the whole network: bit for"
    " bit, or to rounding (1e-5 of a gradient's largest entry) where that is said below.",
    "isolated": "No stage's loss reaches a parameter of another stage (`infopro.isolation_check`).",
    "parity": "Losses, gradients and buffers of a local step equal the independent reference's, bit for bit"
    " (`infopro.parity_check`).",
    "random": "Unseeded calls of the parts differ exactly if those of the network do.",
    "pickles": "A pickled and loaded split computes the same, bit for bit.",
    "eval": "As `train`, in eval mode without gradients.",
    "untouched": "The keys and values of `state_dict`, the identity and memory of every parameter and buffer,"
    " and the modes of all modules are what they were before `localize`.",
}


@dataclass
class Row:
    """What was found out about one network."""

    suite: str
    family: str
    network: str
    input: str = ""
    cuts: str = ""
    carried: str = ""  # per cut: tensors that cross it besides the main one
    live: str = ""
    localize: str = ""
    train: str = ""
    buffers: str = ""
    gradients: str = ""
    isolated: str = ""
    parity: str = ""
    random: str = ""
    pickles: str = ""
    eval: str = ""
    untouched: str = ""
    gradient_difference: str = ""  # relative to the largest entry; 0 is bit for bit
    eval_difference: str = ""  # the same for the result in eval mode with gradients on
    untrained: str = ""  # parameters that back-propagation trains and no local loss reaches
    notes: str = ""
    reason: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return all(getattr(self, check) in ("yes", "live") for check in CHECKS)


def read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [Row(**{**row, "seconds": float(row["seconds"])}) for row in csv.DictReader(stream)]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def totals(rows: Sequence[Row]) -> str:
    """The numbers, in three sentences."""
    passed, live = sum(row.passed for row in rows), sum(row.live == "yes" for row in rows)
    families = {(row.suite, row.family) for row in rows}
    whole = families - {(row.suite, row.family) for row in rows if not row.passed}
    return (
        f"Networks that pass every check: {_share(passed, len(rows))}. "
        f"Families of which every network does: {_share(len(whole), len(families))}. "
        f"{len(rows) - live} networks run in recorded parts, {live} live."
    )


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / max(whole, 1):.1f} %)"


def page(rows: Sequence[Row], *, num_modules: int, balance: str) -> str:
    """The whole document."""
    head = ["suite", "family", "networks", "pass", "run", "carried"]
    live = [LIVE] if any(row.live == "yes" for row in rows) else []
    sections = [
        ("Checks", _table(["check", "what it asks", "networks"], _check_rows(rows)), *live),
        ("Suites", _table(["suite", "networks", "families", "pass"], _suite_rows(rows))),
        ("Failures", _failures(rows)),
        ("Rounding, and parameters without a loss", REMARKS, _remarks(rows)),
        ("Families", CARRIED, _table(head, _family_rows(rows))),
        ("Not covered", NOT_COVERED),
        ("Environment", _environment(rows)),
    ]
    parts = [
        INTRODUCTION.format(number=len(rows), num_modules=num_modules, balance=balance),
        f"**{totals(rows)}**",
        REPEAT,
    ]
    for title, *texts in sections:
        parts += [f"## {title}", *texts]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """\
# Splitting: coverage

What `infopro.localize` does to {number} networks that were not written for it: one of every family of
timm, the classifiers and segmentation networks of torchvision, the architectures of
segmentation_models_pytorch, and five of transformers. Each is split as it is into K = {num_modules} modules
(`balance="{balance}"`), with random weights, in float32, on a CPU, with small images. Dropout and drop
path are on wherever the constructor takes them."""

REPEAT = """\
```sh
pip install transformers segmentation-models-pytorch
python benchmarks/split_coverage.py
```

writes this page and `benchmarks/results/split_coverage.csv`, which has a row per network with its cuts."""

LIVE = """\
A live network cannot run its parts apart: its checks run them by the network's own forward, `pickles`
does not apply, and `parity` compares that forward with itself."""

REMARKS = """\
These pass, too. A local objective reads the largest tensor that its module computes and returns. Where a
cut lies behind a block that returns several, what only the others come from gets no gradient; neither
does an auxiliary head before the last cut, whose result goes to the network's loss.
`infopro.isolation_check(...).untrained` lists such parameters."""

CARRIED = "`carried`: the most tensors that cross one cut besides the one that the local objective reads."

NOT_COVERED = """\
Larger twins of networks in the list (of torchvision regnet_x_32gf, regnet_y_32gf, regnet_y_128gf,
vit_h_14, vit_l_16 and vit_l_32), further networks of a timm family, other K, GPUs, mixed precision,
torchvision's video, quantized and optical-flow networks, and detectors, whose forward takes lists of
images and boxes."""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in [head, ["---"] * len(head), *rows])


def _check_rows(rows: Sequence[Row]) -> Iterator[list[str]]:
    for check, meaning in CHECKS.items():
        found = Counter(getattr(row, check) for row in rows)
        live = f", {found['live']} live" if found["live"] else ""
        yield [f"`{check}`", meaning, f"{found['yes']} of {len(rows)}{live}"]


def _suite_rows(rows: Sequence[Row]) -> Iterator[list[object]]:
    for suite in [*dict.fromkeys(row.suite for row in rows)]:
        own = [row for row in rows if row.suite == suite]
        yield [
            suite,
            len(own),
            len({row.family for row in own}),
            _share(sum(r.passed for r in own), len(own)),
        ]


def _family_rows(rows: Sequence[Row]) -> Iterator[list[object]]:
    families: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        families.setdefault((row.suite, row.family), []).append(row)
    for (suite, family), own in families.items():
        names = own[0].network if len(own) == 1 else len(own)
        live = sum(row.live == "yes" for row in own)
        run = "recorded" if not live else "live" if live == len(own) else f"{live} live"
        carried = max((int(n) for row in own for n in row.carried.split()), default=0)
        yield [suite, family, names, f"{sum(row.passed for row in own)} of {len(own)}", run, carried]


def _failures(rows: Sequence[Row]) -> str:
    failed = [[row.suite, row.network, row.reason.replace("|", "/")] for row in rows if not row.passed]
    return _table(["suite", "network", "reason"], failed) if failed else "None."


def _remarks(rows: Sequence[Row]) -> str:
    remarks = []
    for row in rows:
        if row.gradient_difference not in ("", "0"):
            remarks.append([row.suite, row.network, f"gradients to rounding: {row.gradient_difference}"])
        if row.eval_difference not in ("", "0"):
            what = f"results to rounding in eval mode with gradients on: {row.eval_difference}"
            remarks.append([row.suite, row.network, what])
        if row.untrained:
            names = row.untrained.split()
            what = f"no local loss reaches {len(names)} parameter tensors, the first is `{names[0]}`"
            remarks.append([row.suite, row.network, what])
        if row.live == "yes":
            remarks.append([row.suite, row.network, row.notes.split(";")[0].replace("|", "/")])
    return _table(["suite", "network", "what"], remarks) if remarks else "Nothing."


def _environment(rows: Sequence[Row]) -> str:
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
    minutes = sum(row.seconds for row in rows) / 60
    machine = f"one thread of {processor_name()}"
    return f"{versions}; Python {platform.python_version()}; {machine}; {minutes:.0f} minutes."
