"""The page: whole, offline, escaped, small, the same each time."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infopro.errors import BadInput, MissingPackage
from infopro.report import (
    MARKER,
    Reconstruction,
    ReportData,
    _html,
    page,
    render_report,
    series,
    write_report,
)
from infopro.report.charts import figures


class Elements(HTMLParser):
    """Tags with their attributes, the text outside of scripts and styles, and the scripts by their id."""

    def __init__(self, source: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.content: dict[str, str] = {}
        self.styles = ""
        self._open = ("", "")
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = (tag, dict(attrs).get("id") or "")

    def handle_endtag(self, tag: str) -> None:
        self._open = ("", "")

    def handle_data(self, data: str) -> None:
        tag, identifier = self._open
        if tag == "script":
            self.content[identifier] = self.content.get(identifier, "") + data
        elif tag == "style":
            self.styles += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def unpacked(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each chart, as page.js makes them of the columns in the page."""
    found = {}
    for key, table in record["series"].items():
        columns = [
            [column["texts"][index] for index in column["at"]] if isinstance(column, dict) else column
            for column in table["columns"]
        ]
        rows = zip(*columns, strict=True)
        found[key] = [dict(zip(table["names"], row, strict=True)) for row in rows]
    return found


@pytest.fixture(scope="module")
def html(report_data: ReportData) -> str:
    return render_report(report_data)


@pytest.fixture(scope="module")
def elements(html: str) -> Elements:
    return Elements(html)


def test_everything_stands_in_the_page(elements: Elements, report_data: ReportData) -> None:
    words = " ".join(elements.text.split())
    for method in report_data.methods:
        assert method.name in words
        for part in method.reconstructions:
            assert f"From the output of {part.module}" in words
            assert f"{method.name} {part.error:.3f}" in words
    for stage in report_data.splits[0].stages:
        assert all(block in words for block in stage.blocks)
        assert f"{stage.parameters:,}" in words
    assert words.count("gradient stops here") == len(report_data.splits[0].stages) - 1
    assert all(text in words for text in (*report_data.findings, *report_data.notes, report_data.command))
    for mapping in (report_data.configuration, report_data.environment):
        assert all(key in words and value in words for key, value in mapping.items())


def test_one_image_per_original_and_reconstruction(elements: Elements, report_data: ReportData) -> None:
    images = elements.all("img")
    assert len(images) == 8 * (1 + 4 * 4)
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in images)
    assert len({image["alt"] for image in images}) == len(images)


def test_nothing_is_requested(elements: Elements) -> None:
    for tag, attributes in elements.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert "@import" not in elements.styles
    assert "url(" not in elements.styles
    assert not {"iframe", "object", "embed", "base"} & {tag for tag, _ in elements.tags}
    policy = next(
        meta for meta in elements.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in (policy["content"] or "")
    assert "http" not in (policy["content"] or "")


def test_chart_library_stands_once(html: str, elements: Elements) -> None:
    assert html.count("window.vegaEmbed=") == 1
    assert len(elements.all("script")) == 4


def test_a_study_has_all_parts(study_data: ReportData) -> None:
    source = render_report(study_data)
    parsed = Elements(source)
    assert [s["id"] for s in parsed.all("section")] == [
        "result",
        "memory",
        "knowledge",
        "similarity",
        "gradients",
        "curves",
        "made",
    ]
    keys = {figure["id"] for figure in parsed.all("figure")}
    assert {"error-against-k", "linear-separability", "nuisance-information", "similarity"} <= keys
    assert (
        keys
        == set(json.loads(parsed.content["specs"]))
        == set(unpacked(json.loads(parsed.content["series"])))
    )
    assert "saved-activations" not in keys  # the whole step has them
    choices = [o["value"] for o in parsed.all("option")]
    assert choices == ["4", "2", "0"] * 3
    assert MARKER in source[:4096]
    assert "Every run by itself (13)" in parsed.text
    runs = unpacked({"series": {"runs": json.loads(parsed.content["series"])["runs"]}})["runs"]
    assert [row["seed"] for row in runs if row["method"] == "greedy, K = 2"] == [0, 2]


def test_sixty_long_runs_of_many_modules_stay_small(study_data: ReportData) -> None:
    """Twenty methods, three seeds, 160 epochs, 16 modules."""
    run = study_data.methods[-1].runs[0]
    last, terms = run.records[-1], {"total": 0.123456789, "task": 1.23456789, "reconstruction": 0.6123456789}
    records = tuple(replace(last, epoch=epoch, losses=(terms,) * 16) for epoch in range(1, 161))
    seeds = tuple(
        replace(run, name=f"seed {seed}", seed=seed, records=records, epochs=160) for seed in range(3)
    )
    methods = tuple(
        replace(
            study_data.methods[-1], name=f"a method with a long name, K = {k}", runs=seeds, num_modules=16
        )
        for k in range(20)
    )
    source = render_report(replace(study_data, methods=methods, memory=()))
    assert len(source.encode()) < 2_500_000  # and at most 2.5 MB of images: below 5 MB


def test_small_enough(html: str) -> None:
    assert len(html.encode()) < 2_000_000


def test_same_data_same_bytes(html: str, report_data: ReportData) -> None:
    assert render_report(report_data) == html
    other = replace(report_data, title="Another title")
    assert render_report(other) != html


def test_names_stay_text(report_data: ReportData) -> None:
    evil = '</script><script>alert(1)</script> & "it\'s" <b>'
    first = replace(report_data.methods[0], name=evil, description=evil)
    captions = (evil, *report_data.captions[1:])
    data = replace(
        report_data,
        title=evil,
        methods=(first, *report_data.methods[1:]),
        captions=captions,
        configuration={evil: evil},
        command=evil,
        findings=(evil,),
    )
    source = render_report(data)
    parsed = Elements(source)
    assert "<script>alert" not in source
    assert len(parsed.all("script")) == 4
    assert not parsed.all("b")
    assert parsed.text.count(evil) >= 6
    assert json.loads(parsed.content["series"])["configuration"] == {evil: evil}


def test_downloaded_numbers_are_the_plotted_ones(elements: Elements, report_data: ReportData) -> None:
    record = json.loads(elements.content["series"])
    specs = json.loads(elements.content["specs"])
    drawn = {figure.key: figure for part in figures(report_data.methods).values() for figure in part}
    series = unpacked(record)
    assert series == {key: list(figure.rows) for key, figure in drawn.items()}
    assert specs == {key: figure.spec for key, figure in drawn.items()}
    assert {figure["id"] for figure in elements.all("figure")} == set(drawn)
    curve = [row for row in series["learning-curves"] if row["method"] == "greedy"]
    assert [row["test_error_percent"] for row in curve] == [
        r.test_error for r in report_data.methods[1].records
    ]


def test_diverged_run_still_has_a_page(report_data: ReportData) -> None:
    method = report_data.methods[1]
    lost = replace(method.records[-1], test_error=float("nan"), losses=({"total": float("inf")},))
    data = replace(
        report_data,
        methods=(replace(method, runs=(replace(method.runs[0], records=(*method.records[:-1], lost)),)),),
    )
    parsed = Elements(render_report(data))
    assert "not a number" in parsed.text
    record = unpacked(json.loads(parsed.content["series"]))
    assert record["learning-curves"][-1]["test_error_percent"] is None
    assert record["module-losses"][-1]["loss_nats"] is None


def test_parts_that_are_empty_leave_no_section(report_data: ReportData) -> None:
    bare = replace(report_data.methods[0], runs=(), reconstructions=())
    parsed = Elements(render_report(ReportData(title="bare", summary="one", methods=(bare,))))
    sections = {section["id"] for section in parsed.all("section")}
    assert sections == {"result", "made"}
    assert not parsed.all("img")


def test_large_images_are_shrunk_and_many_are_left_out(report_data: ReportData) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
    parts = tuple(Reconstruction(f"module {i}", noise, 0.6) for i in range(16))
    method = replace(report_data.methods[0], reconstructions=parts)
    data = replace(report_data, methods=(method,), originals=noise, captions=("noise",) * 40)
    source = render_report(data)
    parsed = Elements(source)
    images = parsed.all("img")
    assert len(source.encode()) < 5_000_000
    assert all((image["src"] or "").startswith("data:image/jpeg") for image in images)
    assert len(images) < 40 * 17
    assert f"{len(images) // 17} of 40 test images are shown" in parsed.text


def test_images_get_what_charts_leave(report_data: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST", len(_html.chart_library()) + 300_000)
    source = render_report(report_data)
    assert "of 8 test images are shown" in Elements(source).text
    assert len(source.encode()) < len(_html.chart_library()) + 350_000


def test_long_runs_are_thinned_and_say_so(report_data: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MAX_ROWS", 100)
    parsed = Elements(render_report(report_data))
    stride = series.epoch_stride(report_data.methods)
    assert stride > 1
    assert f"every {stride}th epoch and the last one" in parsed.text


def test_written_whole(tmp_path: Path, html: str, report_data: ReportData) -> None:
    path = write_report(report_data, tmp_path / "deep" / "report.html")
    assert path.read_text(encoding="utf-8") == html
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_failure_leaves_the_old_page_and_nothing_else(
    tmp_path: Path, report_data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("the old page")

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_report(report_data, path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "the old page"


def test_folder_as_path(tmp_path: Path, report_data: ReportData) -> None:
    with pytest.raises(BadInput, match=r"is a folder.*report\.html"):
        write_report(report_data, tmp_path)


@pytest.mark.parametrize("package", ["altair", "jinja2", "vl_convert", "PIL.Image"])
def test_missing_package_names_the_extra(
    package: str, tmp_path: Path, report_data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    _html.chart_library.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=r"infopro\[report\]"):
        write_report(report_data, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_page_files_are_shipped() -> None:
    folder = resources.files("infopro.report")
    for name in (
        "page.html.j2",
        "figure.html.j2",
        "split.html.j2",
        "pipeline.html.j2",
        "page.css",
        "page.js",
    ):
        assert folder.joinpath(name).is_file()
