import re

import pytest

from infopro.cli import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    options = ["--epochs", "1", "--train-size", "256", "--test-size", "128"]
    assert main(["demo", "--output", str(folder), *options]) == 0
    return folder


def test_the_demonstration_writes_one_self_contained_page(demo):
    assert [file.name for file in demo.iterdir()] == ["report.html"]
    page = (demo / "report.html").read_text()
    assert not re.search(r"(src|href)=[\"']?https?:", page)
    for name in ("end to end", "greedy", "control: heads only", "InfoPro"):
        assert name in page
    assert len(page) < 5_000_000


def test_every_method_shows_its_reconstructions(demo):
    page = (demo / "report.html").read_text()
    assert page.count("data:image/png") >= 3 * 4


def test_an_existing_folder_is_refused(demo, capsys):
    before = (demo / "report.html").read_bytes()
    assert main(["demo", "--output", str(demo)]) == 2
    assert "exists" in capsys.readouterr().err
    assert (demo / "report.html").read_bytes() == before


@pytest.mark.parametrize("option", [["--epochs", "0"], ["--train-size", "x"]])
def test_bad_options(option, tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "out"), *option]) == 2
    assert capsys.readouterr().err.count("\n") == 1
