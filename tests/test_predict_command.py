import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from infopro import recipes
from infopro.cli import main
from infopro.errors import BadConfiguration
from infopro.predict_command import _inference, _reader
from infopro.prediction import Inference, colour_mask
from infopro.prediction.photos import grey
from infopro.trained_network import load_network

CROP = (32, 32)
NAMES = ("red earth", "green", "blue sky")
COLOURS = ((120, 60, 0), (0, 200, 0), (70, 130, 180))


def scene(rows, columns, seed):
    """A photo of three plain areas, and which they are."""
    generator = np.random.default_rng(seed)
    mask = np.zeros((rows, columns), np.uint8)
    mask[: rows // 2] = 2
    mask[:, columns // 2 :] = 1
    pixels = np.array([[180, 60, 20], [30, 190, 40], [60, 80, 220]])[mask]
    return (pixels + generator.integers(-20, 21, (rows, columns, 3))).clip(0, 255).astype(np.uint8), mask


def write_masks(folder):
    for part, count in (("train", 6), ("val", 2)):
        for kind in ("images", "masks"):
            (folder / part / kind).mkdir(parents=True)
        for index in range(count):
            photo, mask = scene(32, 40, index)
            Image.fromarray(photo).save(folder / part / "images" / f"{index}.png")
            Image.fromarray(mask).save(folder / part / "masks" / f"{index}.png")
    lines = [f"{name} {' '.join(map(str, colour))}" for name, colour in zip(NAMES, COLOURS, strict=True)]
    (folder / "classes.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def mask_run(tmp_path_factory):
    """A network that learnt masks from crops, a little; its data are gone."""
    folder = tmp_path_factory.mktemp("masks")
    write_masks(folder / "set")
    options = ["--data", str(folder / "set"), "--model", "torchvision/lraspp_mobilenet_v3_large"]
    options += ["--objective", "end-to-end", "--num-modules", "1", "--epochs", "2", "--batch-size", "6"]
    options += ["--learning-rate", "0.02", "--schedule", "constant", "--crop", "32,32", "--scale", "1,1"]
    assert main(["train", *options, "--device", "cpu", "--output", str(folder / "run")]) == 0
    shutil.rmtree(folder / "set")
    return folder / "run"


@pytest.fixture
def network(mask_run):
    """The run's own network, as evaluation has it."""
    return load_network(mask_run, device=torch.device("cpu"))


@pytest.fixture
def photos(tmp_path):
    """Of two sizes, one name twice."""
    for name, size, seed in (
        ("a/one.png", (40, 56), 3),
        ("b/one.png", (24, 24), 4),
        ("b/two.bmp", (32, 32), 5),
    ):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(*size, seed)[0]).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def predict(*arguments):
    return main(["predict", *map(str, arguments), "--device", "cpu"])


def files(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def pixels(file):
    with Image.open(file) as image:
        return np.array(image)


@torch.no_grad()
def likely(network, photo, *, window=None):
    """Probabilities [3, H, W], by hand: of the whole photo, or of windows at the given places."""
    mean, std = (values.view(3, 1, 1) for values in (network.task.mean, network.task.std))
    image = ((torch.from_numpy(photo).permute(2, 0, 1) / 255 - mean) / std)[None]
    forward = lambda part: network.model.eval()(part)["out"].softmax(dim=1)[0]  # noqa: E731
    if window is None:
        return forward(image)
    sums, counts = torch.zeros(3, *photo.shape[:2]), torch.zeros(photo.shape[:2])
    for top, left in window:
        box = slice(top, top + CROP[0]), slice(left, left + CROP[1])
        sums[:, *box] += forward(image[:, :, *box])
        counts[box] += 1
    return sums / counts


def is_best(mask, values):
    """Whether a mask has the most probable classes; batches of another size may round another way."""
    chosen = values.gather(0, torch.from_numpy(mask.astype(np.int64))[None])[0]
    return bool((chosen >= values.amax(dim=0) - 1e-5).all())


def test_masks_and_overlays_are_written_and_said(mask_run, network, photos, tmp_path, capsys):
    before = files(mask_run)
    assert predict(mask_run, photos, "-o", tmp_path / "new" / "out") == 0
    out = tmp_path / "new" / "out"
    names = ("a-one", "b-one", "two")
    assert sorted(path.name for path in out.iterdir()) == [
        f"{name}_{kind}.png" for name in names for kind in ("mask", "overlay")
    ]
    printed = capsys.readouterr().out
    assert f"{mask_run}, epoch 2: share of the area" in printed
    assert f"wrote 6 files: {out}/*_mask.png (class numbers) and {out}/*_overlay.png" in printed
    assert files(mask_run) == before

    # 40 x 56 in windows of 32 x 32: 21 pixels apart, the last ones at the edge
    places = [(top, left) for top in (0, 8) for left in (0, 21, 24)]
    photo = pixels(photos / "a" / "one.png")
    mask = pixels(out / "a-one_mask.png")
    assert len(np.unique(mask)) > 1
    assert is_best(mask, likely(network, photo, window=places))
    assert not is_best(mask, likely(network, photo))
    with Image.open(out / "a-one_mask.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image.convert("RGB")), colour_mask(mask, COLOURS))
    overlay = pixels(out / "a-one_overlay.png")[: 40 * 5 : 5, : 56 * 5 : 5]  # 56 pixels become 280
    mixed = 0.4 * photo + 0.6 * np.array(COLOURS)[mask]
    assert np.abs(overlay - mixed).max() <= 0.51
    line = next(line for line in printed.splitlines() if "a/one.png" in line)
    for label in np.unique(mask):
        share = f"{NAMES[label]} {100 * (mask == label).mean():.1f} %"
        assert share in line
    assert pixels(out / "b-one_mask.png").shape == (24, 24)  # smaller than the window


@pytest.mark.parametrize("options", [["--window", "whole"], ["--window", "40,56"], ["--window", "[40, 56]"]])
def test_an_image_is_seen_whole_when_asked_for(mask_run, network, photos, tmp_path, options):
    file = photos / "a" / "one.png"
    assert predict(mask_run, file, "-o", tmp_path / "out", *options) == 0
    assert is_best(pixels(tmp_path / "out" / "one_mask.png"), likely(network, pixels(file)))


def test_scales_and_mirror_images_change_the_prediction(mask_run, network, photos, tmp_path):
    file = photos / "b" / "two.bmp"
    assert predict(mask_run, file, "-o", tmp_path / "out", "--flip") == 0
    photo = pixels(file)
    mirrored = likely(network, np.ascontiguousarray(photo[:, ::-1])).flip(-1)
    assert is_best(pixels(tmp_path / "out" / "two_mask.png"), (likely(network, photo) + mirrored) / 2)
    assert predict(mask_run, file, "-o", tmp_path / "scaled", "--scales", "0.5", "1", "2", "--top", "1") == 0
    assert pixels(tmp_path / "scaled" / "two_mask.png").shape == (32, 32)


def test_results_are_never_overwritten(mask_run, photos, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "two_overlay.png").write_text("mine")
    before = files(tmp_path)
    assert predict(mask_run, photos, "-o", out) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "nothing is overwritten" in error and "two_overlay.png" in error
    assert files(tmp_path) == before
    assert predict(mask_run, photos / "a", "-o", out) == 0  # others may be added
    assert len(files(out)) == 3


def test_broken_images_are_left_out_and_named(mask_run, photos, tmp_path, capsys):
    content = (photos / "b" / "two.bmp").read_bytes()
    (photos / "b" / "half.bmp").write_bytes(content[:200])
    (photos / "notes.txt").write_text("no image")
    assert predict(mask_run, photos, photos / "notes.txt", "-o", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert captured.out.count("left out: cannot read the image") == 2
    assert captured.err.count("\n") == 1 and captured.err.startswith("infopro: 2 of 5 images cannot be read")
    assert "half.bmp" in captured.err and "notes.txt" in captured.err and "others are" in captured.err
    assert len(files(tmp_path / "out")) == 6
    assert predict(mask_run, photos / "notes.txt", "-o", tmp_path / "none") == 2
    assert "1 of 1 images cannot be read" in capsys.readouterr().err
    assert files(tmp_path / "none") == {}


def test_classes_are_told_and_written(trained_run, tmp_path, capsys):
    loaded = recipes.load_run(trained_run)
    images = loaded.data.test.images
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "photos" / f"{index:02}.png")
    assert predict(trained_run, tmp_path / "photos", "-o", tmp_path / "new" / "found", "--top", "2") == 0
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "new" / "found.json").read_text())
    assert printed.endswith(f"wrote {tmp_path / 'new' / 'found.json'}\n")
    assert (content["run"], content["checkpoint"], content["epoch"]) == (str(trained_run), "epoch-0002", 2)
    assert content["broken"] == []

    model = loaded.local.model.eval()
    mean, std = torch.tensor(loaded.data.mean).view(3, 1, 1), torch.tensor(loaded.data.std).view(3, 1, 1)
    with torch.no_grad():
        expected = model((images / 255 - mean) / std).softmax(dim=1)
    best = [entry["classes"][0]["number"] for entry in content["images"]]
    wrong = (torch.tensor(best) != loaded.data.test.labels).float().mean()
    where = {"data_dir": None, "download": False, "device": torch.device("cpu")}
    assert 100 * float(wrong) == pytest.approx(recipes.evaluate_run(trained_run, **where)[1].error)
    for index, entry in enumerate(content["images"]):
        assert entry["image"] == str(tmp_path / "photos" / f"{index:02}.png")
        values, numbers = expected[index].sort(descending=True)
        assert [c["number"] for c in entry["classes"]] == numbers[:2].tolist()
        assert [c["probability"] for c in entry["classes"]] == pytest.approx(values[:2].tolist(), rel=1e-4)
        assert [c["name"] for c in entry["classes"]] == [loaded.data.class_names[n] for n in numbers[:2]]
    name, share = (
        content["images"][0]["classes"][0]["name"],
        content["images"][0]["classes"][0]["probability"],
    )
    line = next(line for line in printed.splitlines() if "00.png" in line)
    assert f"{name} {100 * share:.1f} %" in line


def test_photos_are_brought_to_the_size_of_the_test_images(trained_run, tmp_path, capsys):
    Image.fromarray(scene(50, 70, 0)[0]).save(tmp_path / "photo.jpg")
    assert predict(trained_run, tmp_path / "photo.jpg") == 0  # the table alone
    assert "photo.jpg" in capsys.readouterr().out
    assert [file.name for file in files(tmp_path)] == ["photo.jpg"]


def test_of_a_run_on_a_folder_the_middle_is_cut_out(trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    plain, edges = np.full((2, 32, 64, 3), 90, np.uint8)
    edges[:, :12] = edges[:, -12:] = 255
    for name, photo in (("plain", plain), ("edges", edges)):
        Image.fromarray(photo).save(tmp_path / f"{name}.png")
    alike = []
    for data in (None, "some/folder"):
        configuration = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps({**configuration, **({"data": data} if data else {})}))
        out = tmp_path / f"{data is None}.json"
        assert predict(run, tmp_path / "plain.png", tmp_path / "edges.png", "-o", out) == 0
        first, second = json.loads(out.read_text())["images"]
        alike.append(first["classes"] == second["classes"])
    assert alike == [False, True]


def test_networks_of_one_channel_see_photos_in_grey(network, tmp_path):
    photo = scene(20, 30, 0)[0]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    read = _reader(replace(network, image_shape=(1, 32, 32)))
    assert np.array_equal(read(tmp_path / "photo.png"), grey(photo))
    with pytest.raises(
        BadConfiguration, match="three channels, or one in grey: got a network of images with 4"
    ):
        _reader(replace(network, image_shape=(4, 32, 32)))


def test_names_with_brackets_and_spaces_stand_in_the_table_as_they_are(mask_run, tmp_path, capsys):
    name = "a [red]ü [/b]"
    Image.fromarray(scene(32, 40, 1)[0]).save(tmp_path / f"{name.replace('/', ':')}.png")
    capsys.readouterr()
    assert predict(mask_run, tmp_path / f"{name.replace('/', ':')}.png", "-o", tmp_path / "out") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "[red]ü" in printed and "[:b]" in printed
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_networks_built_for_one_size_see_windows_of_it(network):
    options = SimpleNamespace(window=None, scales=None, flip=False, batch_size=4)
    built = replace(network, crop=None, needs=replace(network.needs, fixed=True, multiple_of=8))
    assert _inference(built, options) == Inference(window=(32, 32), multiple_of=8)
    resized = replace(built, size=(32, 32))  # its windows are whole images; of other scales they are not
    scaled = SimpleNamespace(**{**vars(options), "scales": [0.5, 1.0]})
    seen = Inference(window=(32, 32), size=(32, 32), scales=(0.5, 1.0), multiple_of=8)
    assert _inference(resized, scaled) == seen
    options.window = "whole"
    assert _inference(resized, options) == replace(seen, scales=(1.0,))
    with pytest.raises(BadConfiguration, match="one size only: got --window whole; allowed: --window 32,32"):
        _inference(built, options)
    options.window = None
    assert _inference(replace(network, crop=None), options) == Inference()
    assert _inference(network, options) == Inference(window=(32, 32))


def without_checkpoint(run):
    shutil.rmtree(run / "checkpoints")


def without_names(run):
    record = json.loads((run / "run.json").read_text())
    del record["class_names"]
    (run / "run.json").write_text(json.dumps(record))


BAD = {
    "no such run": ("masks", None, ["{tmp}/nowhere", "{photos}"], "run folder does not exist"),
    "no checkpoint": ("masks", without_checkpoint, ["{run}", "{photos}"], "has no checkpoint"),
    "an early run": ("masks", without_names, ["{run}", "{photos}"], "got no class_names"),
    "no such image": ("masks", None, ["{run}", "{photos}/none.png"], "there is no such image or folder"),
    "no images in it": ("masks", None, ["{run}", "{run}/checkpoints"], "there are no images in the folder"),
    "no image named": ("masks", None, ["{run}"], "images"),
    "nowhere to write": ("masks", None, ["{run}", "{photos}"], "name a folder for them: -o FOLDER"),
    "a file in the way": (
        "masks",
        None,
        ["{run}", "{photos}", "-o", "{run}/run.json"],
        "a file stands where",
    ),
    "no window": (
        "masks",
        None,
        ["{run}", "{photos}", "-o", "{tmp}/o", "--window", "big"],
        "--window cannot",
    ),
    "window 0": (
        "masks",
        None,
        ["{run}", "{photos}", "-o", "{tmp}/o", "--window", "0,8"],
        "window is (0, 8)",
    ),
    "scale 0": ("masks", None, ["{run}", "{photos}", "-o", "{tmp}/o", "--scales", "0"], "scales"),
    "no device": ("masks", None, ["{run}", "{photos}", "--device", "tpu"], "device is not usable"),
    "no class": ("classes", None, ["{run}", "{photos}", "--top", "0"], "top"),
    "unread": (
        "classes",
        None,
        ["{run}", "{photos}", "--flip", "--window", "8,8"],
        "--window and --flip: nothing reads this: got a run that predicts one class an image",
    ),
    "existing file": (
        "classes",
        None,
        ["{run}", "{photos}", "-o", "{run}/run.json"],
        "nothing is overwritten",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_writes_nothing(
    case, trained_run, mask_run, photos, tmp_path, capsys
):
    kind, prepare, arguments, message = BAD[case]
    run = tmp_path / "run"
    shutil.copytree(mask_run if kind == "masks" else trained_run, run)
    if prepare is not None:
        prepare(run)
    before = files(tmp_path)
    places = {"run": run, "photos": photos, "tmp": tmp_path}
    given = [argument.format(**places) for argument in arguments]
    assert main(["predict", *given, *([] if "--device" in given else ["--device", "cpu"])]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("infopro: ") and message in error
    assert files(tmp_path) == before


def test_help_explains_every_option(capsys):
    assert main(["predict", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "the crop that the run trained on" in printed and "image files of any usual format" in printed
