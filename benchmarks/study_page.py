"""docs/study.md from the study's runs: every number of the page comes through here."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from study_claims import Run, Verdict, judge
from study_figures import draw_figures

from infopro import recipes
from infopro.analysis import Analysis, BlockInformation, input_information, input_scores
from infopro.report.spread import spread
from infopro.training import RunFolder

__all__ = ["write_page"]

NAMES = {"study-digits": "Digits on photos", "study-cifar10": "CIFAR-10, 10,000 images"}
METHODS = {
    "end-to-end": "end to end",
    "greedy": "greedy",
    "dgl": "DGL",
    "no-reconstruction": "λ1 = 0 (control)",
    "infopro-softmax": "InfoPro, softmax",
    "infopro-contrast": "InfoPro, contrast",
}
FACTOR_NAMES = {"nuisance": "sum over factors"}
TEXT = Path(__file__).parent / "study_text.md"  # what was written by hand; holds no number of a result


def write_page(runs: Mapping[str, Sequence[Run]], folder: Path, docs: Path) -> None:
    """Write study.md and its pictures.

    Args:
        runs: by family of recipes.
        folder: of the sweeps.
    """
    text = TEXT.read_text()
    for name, part in _parts(runs, folder, docs).items():
        text = text.replace(f"<!-- {name} -->", part)
    (docs / "study.md").write_text(text)


def _parts(runs: Mapping[str, Sequence[Run]], folder: Path, docs: Path) -> dict[str, str]:
    return {
        "setting": _setting(folder, runs),
        "search": _search(),
        "errors": _sections(runs, _errors),
        "claims": _sections(runs, _claims),
        "layers": _sections(runs, _layers),
        "nuisance": _sections({f: r for f, r in runs.items() if _factors(r)}, _nuisance),
        **{f"figures {family}": _figures(family, folder, docs) for family in runs},
    }


def _sections(
    runs: Mapping[str, Sequence[Run]], part: Callable[[Sequence[Run]], str], *, level: str = "###"
) -> str:
    return "\n\n".join(f"{level} {NAMES[family]}\n\n{part(members)}" for family, members in runs.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _setting(folder: Path, runs: Mapping[str, Sequence[Run]]) -> str:
    rows = []
    for family in runs:
        config = recipes.load(f"{family}-k8-infopro-softmax").config
        seconds = _seconds(folder / family / "runs")
        rows.append(
            [NAMES[family], config.model, str(config.limit_train), str(config.limit_test or "all"),
             str(config.epochs), str(config.batch_size), str(config.learning_rate), f"{seconds / 3600:.1f} h"]
        )  # fmt: skip
    head = ["data", "network", "train", "test", "epochs", "batch", "learning rate", "training, all runs"]
    return f"{_table(head, rows)}\n\n{_environment(folder, runs)}"


def _seconds(folder: Path) -> float:
    """Of one core: every run has one."""
    return sum(record.seconds for path in folder.iterdir() for record in RunFolder(path).log())


def _environment(folder: Path, runs: Mapping[str, Sequence[Run]]) -> str:
    family = next(iter(runs))
    record = RunFolder(folder / family / "runs" / "end-to-end-seed0").record["environment"]
    return (
        f"Hardware: {record['device']}, {record['threads']} thread a run; Python {record['python']}, "
        f"torch {record['versions']['torch']}."
    )


def _search() -> str:
    with (Path(__file__).parent / "results" / "study_search.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    chosen = [row for row in rows if row["chosen"] == "True"]
    return _table(
        ["data", "method", "λ1", "λ2", "held-out error (%)", "held-out errors of all candidates (%)"],
        [
            [NAMES[r["family"]], METHODS[r["method"]], r["reconstruction_weight"], r["task_weight"],
             r["held_out_error_percent"], ", ".join(_errors_of(rows, r))]
            for r in chosen
        ],
    )  # fmt: skip


def _errors_of(rows: Sequence[Mapping[str, str]], chosen: Mapping[str, str]) -> list[str]:
    same = [r for r in rows if (r["family"], r["method"]) == (chosen["family"], chosen["method"])]
    return [r["held_out_error_percent"] for r in same]


def _number(values: Sequence[float], digits: int = 2) -> str:
    found = spread(values)
    if found is None:
        return "–"
    deviation = "" if found.deviation is None else f" ± {found.deviation:.{digits}f}"
    return f"{found.mean:.{digits}f}{deviation}"


def _errors(runs: Sequence[Run]) -> str:
    numbers = sorted({run.num_modules for run in runs})
    rows = [
        [
            name,
            *(_number([r.test_error for r in runs if (r.method, r.num_modules) == (m, k)]) for k in numbers),
        ]
        for m, name in METHODS.items()
    ]
    n = len({run.seed for run in runs})
    return _table([f"test error (%), n = {n}", *(f"K = {k}" for k in numbers)], rows)


def _claims(runs: Sequence[Run]) -> str:
    return _table(
        ["figure", "the paper, or what follows from it", "K", "difference (95 % interval)", "here"],
        [_claim_row(verdict) for verdict in judge(runs)],
    )


def _claim_row(verdict: Verdict) -> list[str]:
    found, claim = verdict.difference, verdict.claim
    half = "" if found.half_width is None else f" ± {found.half_width:.2f}"
    return [
        claim.figure,
        claim.text,
        str(verdict.num_modules),
        f"{found.mean:+.2f}{half} {claim.unit}",
        verdict.word,
    ]


def _analysed(runs: Sequence[Run], method: str) -> list[Analysis]:
    largest = max(run.num_modules for run in runs)
    k = 1 if method == "end-to-end" else largest
    return [r.analysis for r in runs if r.analysis and (r.method, r.num_modules) == (method, k)]


def _layers(runs: Sequence[Run]) -> str:
    """The first, the middle and the last block of each method."""
    quantities: dict[str, tuple[Callable[[Analysis, BlockInformation], float], int]] = {
        "linear probe's test error (%)": (lambda a, b: statistics.fmean(b.linear_error), 1),
        "1 − cross-entropy": (lambda a, b: statistics.fmean(input_scores(b)), 4),
        "I(h, x) (nats per image)": (lambda a, b: statistics.fmean(input_information(b, a.references)), 1),
        "I(h, y), large (nats)": (lambda a, b: statistics.fmean(b.task_information["large"]), 2),
        "I(h, y), small (nats)": (lambda a, b: statistics.fmean(b.task_information["small"]), 2),
    }
    tables = []
    for title, (number, digits) in quantities.items():
        names, rows = [], []
        for method, name in METHODS.items():
            found = _analysed(runs, method)
            if found:
                names = [block.block for block in found[0].blocks if block.depth]
                values = [
                    [number(a, b) for a in found for b in a.blocks if b.block == block] for block in names
                ]
                rows.append([name, *(_number(column, digits) for column in values)])
        tables.append(_table([title, *names], rows))
    return "\n\n".join(tables)


def _factors(runs: Sequence[Run]) -> list[str]:
    analyses = [run.analysis for run in runs if run.analysis is not None]
    return list(analyses[0].references.nuisance_entropy) if analyses else []


def _nuisance(runs: Sequence[Run]) -> str:
    """Mean over the blocks of the local modules: all but the last."""
    factors = _factors(runs)
    references = next(run.analysis.references for run in runs if run.analysis is not None)
    rows = []
    for method, name in METHODS.items():
        found = _analysed(runs, method)
        means = [
            [
                statistics.fmean(_mean_of(b, f) for b in a.blocks if 0 < b.depth < len(a.blocks) - 1)
                for a in found
            ]
            for f in factors
        ]
        if found:
            total = [sum(column) for column in zip(*means, strict=True)]
            rows.append([name, *(_number(column) for column in means), _number(total)])
    entropies = [f"{references.nuisance_entropy[f]:.2f}" for f in factors]
    whole = f"{sum(references.nuisance_entropy.values()):.2f}"
    head = ["I(h, r) (nats), mean over blocks", *(f.replace("_", " ") for f in factors), "sum"]
    return _table(head, [*rows, ["H(r)", *entropies, whole]])


def _mean_of(block: BlockInformation, factor: str) -> float:
    return statistics.fmean(block.nuisance_information[factor])


def _figures(family: str, folder: Path, docs: Path) -> str:
    drawn = draw_figures(sorted((folder / family / "runs").iterdir()), docs / "images", prefix=family)
    return "\n\n".join(f"![{p.alt}](images/{p.file.name})\n\n{p.caption}" for p in drawn)
