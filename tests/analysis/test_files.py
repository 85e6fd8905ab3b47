import json
import math

import numpy as np
import pytest

from infopro.analysis import (
    Analysis,
    BlockInformation,
    DecodedImages,
    ModuleGradient,
    References,
    Similarity,
    has_analysis,
    read_analysis,
    write_analysis,
)
from infopro.errors import BadRun

GENERATOR = np.random.default_rng(0)


def decoded():
    return DecodedImages(
        originals=GENERATOR.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8),
        captions=("one", "zwei", "<três>"),
        blocks=("layer1.0", "layer2.0"),
        decoded=GENERATOR.integers(0, 256, (2, 3, 4, 4, 1), dtype=np.uint8),
    )


def analysis(**changes):
    block = BlockInformation(
        block="layer1.0",
        depth=1,
        module=1,
        feature_shape=(4, 8, 8),
        linear_error=(100 / 3,),
        input_cross_entropy=(0.1 + 0.2, 0.5),
        task_information={"small": (1e-17, -0.25), "large": (2.0, math.pi)},
        nuisance_information={"crop scale": (0.7, 0.6)},
    )
    values = {
        "references": References(pixels=16, label_entropy=math.log(3), constant_cross_entropy=0.61),
        "blocks": (block,),
        "gradients": (
            ModuleGradient(module=1, local_norm=(0.0,), end_to_end_norm=(math.inf,), angle_degrees=(90.5,)),
        ),
        "similarities": (
            Similarity(row_run="a", column_run="b", rows=("x", "y"), columns=("z",), values=((0.5,), (1.0,))),
        ),
        "settings": {"epochs": 12, "task_heads": {"small": "0c1f"}},
        "seconds": 1.5,
        "notes": ("a factor was left out",),
        "record": {"command": "infopro analyze runs/a", "epoch": 3, "environment": {"cores": 2}},
    }
    return Analysis(**{**values, **changes})


def test_what_is_read_is_what_was_written(tmp_path):
    images = decoded()
    files = write_analysis(tmp_path, analysis(images=images))
    assert files == [tmp_path / "analysis" / n for n in ("analysis.json", "reconstructions.npz")]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["analysis"]
    found = read_analysis(tmp_path)
    assert found == analysis()  # every float, to the last bit
    assert found.images.captions == images.captions and found.images.blocks == images.blocks
    assert np.array_equal(found.images.originals, images.originals)
    assert np.array_equal(found.images.decoded, images.decoded)


def test_without_images_there_is_no_file_of_them(tmp_path):
    assert not has_analysis(tmp_path)
    write_analysis(tmp_path, analysis())
    assert has_analysis(tmp_path) and read_analysis(tmp_path).images is None
    assert [file.name for file in (tmp_path / "analysis").iterdir()] == ["analysis.json"]


def test_an_angle_that_does_not_exist_is_null(tmp_path):
    gradient = ModuleGradient(module=1, local_norm=(0.0,), end_to_end_norm=(1.0,), angle_degrees=(math.nan,))
    write_analysis(tmp_path, analysis(gradients=(gradient,)))
    content = json.loads((tmp_path / "analysis" / "analysis.json").read_text())
    assert content["gradients"][0]["angle_degrees"] == [None]
    assert math.isnan(read_analysis(tmp_path).gradients[0].angle_degrees[0])


def test_nothing_is_overwritten_unless_asked(tmp_path):
    write_analysis(tmp_path, analysis(images=decoded()))
    with pytest.raises(BadRun, match=r"has an analysis already: got .*; pass --overwrite"):
        write_analysis(tmp_path, analysis(seconds=2.0))
    assert read_analysis(tmp_path).seconds == 1.5
    write_analysis(tmp_path, analysis(seconds=2.0), overwrite=True)
    assert read_analysis(tmp_path) == analysis(seconds=2.0)
    assert read_analysis(tmp_path).images is None  # nothing is left of the one before
    assert [file.name for file in tmp_path.iterdir()] == ["analysis"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    write_analysis(tmp_path, analysis())

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(BadRun, match=r"cannot be written: got No space left on device"):
        write_analysis(tmp_path, analysis(images=decoded(), seconds=9.0), overwrite=True)
    assert read_analysis(tmp_path) == analysis()
    monkeypatch.undo()
    write_analysis(tmp_path, analysis(images=decoded()), overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["analysis"]


def test_a_run_without_analysis_is_told_how_to_get_one(tmp_path):
    with pytest.raises(BadRun, match=r"has no analysis: got .*; run: infopro analyze "):
        read_analysis(tmp_path)


def change(content, *path, value):
    for step in path[:-1]:
        content = content[step]
    content[path[-1]] = value


DAMAGE = {
    "another type": (("blocks", 0, "depth"), "one", r"blocks\[0\].depth is 'one' and no int"),
    "no number": (("blocks", 0, "linear_error"), ["x"], r"linear_error\[0\] is 'x' and no number"),
    "a truth": (("seconds",), True, "seconds is True and no number"),
    "no list": (("blocks",), {}, "no list"),
    "unknown field": (("colour",), "red", "an unknown 'colour'"),
    "missing field": (("references",), {"pixels": 3}, "references has no 'constant_cross_entropy'"),
    "another format": (("format",), 2, "another format"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_numbers_are_named(case, tmp_path):
    path, value, message = DAMAGE[case]
    write_analysis(tmp_path, analysis())
    file = tmp_path / "analysis" / "analysis.json"
    content = json.loads(file.read_text())
    change(content, *path, value=value)
    file.write_text(json.dumps(content))
    with pytest.raises(BadRun, match=rf"analysis.json is damaged: .*{message}.*; make it anew: infopro"):
        read_analysis(tmp_path)


@pytest.mark.parametrize("name", ["analysis.json", "reconstructions.npz"])
@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b""])
def test_files_cut_short_are_named(name, damage, tmp_path):
    write_analysis(tmp_path, analysis(images=decoded()))
    file = tmp_path / "analysis" / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BadRun, match=rf"{name} is damaged: got .*--overwrite"):
        read_analysis(tmp_path)


@pytest.mark.parametrize(
    "change", [{"blocks": ("one",)}, {"originals": np.zeros((3, 4, 4, 1))}, {"captions": ("only one",)}]
)
def test_images_that_do_not_fit_each_other_are_damaged(change, tmp_path):
    from dataclasses import replace

    write_analysis(tmp_path, analysis(images=replace(decoded(), **change)))
    with pytest.raises(BadRun, match=r"reconstructions.npz is damaged"):
        read_analysis(tmp_path)
