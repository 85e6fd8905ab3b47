"""The verdicts of the study: which side of 0 an interval lies on, paired by seed."""

import sys
from pathlib import Path

import pytest

from infopro.analysis import Analysis, BlockInformation, References

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from study_claims import CLAIMS, Run, judge


def runs(method, num_modules, errors):
    return [
        Run(method=method, num_modules=num_modules, seed=seed, test_error=error)
        for seed, error in enumerate(errors)
    ]


def verdict(found, text, num_modules):
    (one,) = [v for v in found if v.claim.text == text and v.num_modules == num_modules]
    return one


@pytest.mark.parametrize(
    ("greedy", "word"),
    [
        ([20.0, 21.0, 22.0], "yes"),
        ([5.0, 6.0, 7.0], "no, the opposite"),
        ([5.0, 11.0, 20.0], "not decided"),
    ],
)
def test_a_verdict_is_the_side_of_the_paired_interval(greedy, word):
    found = judge([*runs("end-to-end", 1, [10.0, 11.5, 11.5]), *runs("greedy", 4, greedy)])
    assert verdict(found, "greedy is worse than end to end", 4).word == word


def test_seeds_that_only_one_side_has_do_not_count():
    found = judge([*runs("end-to-end", 1, [10.0, 11.0]), *runs("greedy", 2, [20.0, 22.0, 90.0])])
    difference = verdict(found, "greedy is worse than end to end", 2).difference
    assert (difference.mean, difference.count) == (10.5, 2)


def test_what_was_not_measured_is_not_judged():
    found = judge([*runs("end-to-end", 1, [10.0]), *runs("greedy", 8, [20.0])])
    assert [v.claim.text for v in found] == ["greedy is worse than end to end"]
    assert found[0].word == "not decided", "one seed decides nothing"


def analysed(method, num_modules, seed, errors):
    blocks = [
        BlockInformation(block=str(depth), depth=depth, module=1, feature_shape=(1,), linear_error=(error,))
        for depth, error in enumerate(errors)
    ]
    references = References(pixels=4, label_entropy=1.0, constant_cross_entropy=0.7)
    analysis = Analysis(references=references, blocks=tuple(blocks))
    return Run(method=method, num_modules=num_modules, seed=seed, test_error=10.0, analysis=analysis)


def test_first_third_and_last_block_leave_out_the_image():
    separability = [claim for claim in CLAIMS if claim.figure == "linear separability"]
    run = analysed("greedy", 8, 0, [99.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0])
    values = {claim.text: claim.quantity(run) for claim in separability}
    assert values["greedy's first third separates better than end to end's"] == 15.0
    assert values["greedy's last block separates worse than end to end's"] == 60.0
