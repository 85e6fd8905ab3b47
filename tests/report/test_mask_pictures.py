"""Truth and predictions of masks on the page: every row there, legend escaped, few enough to be small."""

import re
from dataclasses import replace

import numpy as np
import pytest

from infopro.report import MaskPictures, MaskRow, MethodResult, ReportData, render_report
from infopro.report._mask_pictures import mask_grid


def pictures(number=3, side=8):
    draw = np.random.default_rng(0)

    def some():
        return draw.integers(0, 256, (number, side, side, 3), dtype=np.uint8)

    rows = (
        MaskRow(method="greedy, K = 2", source="prediction", images=some()),
        MaskRow(method="greedy, K = 2", source="module 1's own", images=some()),
        MaskRow(method="end to end", source="prediction", images=some()),
    )
    legend = (("<script>", (1, 2, 3)), ("road", (255, 0, 16)))
    return MaskPictures(images=some(), truth=some(), rows=rows, legend=legend)


def page(masks):
    data = ReportData(
        title="t",
        summary="s",
        methods=(MethodResult(name="greedy, K = 2", num_modules=2, runs=()),),
        masks=masks,
    )
    return render_report(data)


def test_rows_stand_below_their_method_in_order():
    grid = mask_grid(pictures(), budget=10**9)
    assert [name for name, _ in grid.given] == ["Image", "Ground truth"]
    found = [(name, [source for source, _ in rows]) for name, rows in grid.groups]
    assert found == [("greedy, K = 2", ["prediction", "module 1's own"]), ("end to end", ["prediction"])]
    assert grid.legend == (("<script>", "#010203"), ("road", "#ff0010"))
    assert (grid.width, grid.pixel_exact) == (136, True), "whole multiples of 8 pixels"


def test_the_page_has_every_picture_and_escapes_names():
    text = page(pictures())
    section = text[text.index('<section id="predictions">') :]
    section = section[: section.index("</section>")]
    assert len(re.findall('<img src="data:image/png', section)) == 5 * 3
    assert "&lt;script&gt;" in section and "<script>" not in section
    assert 'href="#predictions"' in text
    assert "100 % minus the mean intersection over union" in text, "what the test error of masks is"
    assert 'id="predictions"' not in page(None)


@pytest.mark.parametrize(("budget", "shown"), [(0, 1), (10**9, 3)])
def test_as_many_images_as_fit_and_at_least_one(budget, shown):
    grid = mask_grid(pictures(), budget=budget)
    assert (grid.count, grid.num_given) == (shown, 3)
    assert all(len(uris) == shown for _, rows in grid.groups for _, uris in rows)


def test_large_images_are_shrunk_to_twice_their_place():
    large = pictures(number=1, side=600)
    grid = mask_grid(replace(large, rows=large.rows[:1]), budget=10**9)
    assert (grid.width, grid.pixel_exact) == (140, False)
    assert grid.given[0][1][0].startswith("data:image/jpeg")
