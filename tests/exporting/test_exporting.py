"""`infopro export`: what it writes loads where this package cannot be imported, and computes the same."""

import hashlib
import json
import shutil
import stat
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from infopro.cli import main
from infopro.exporting import export_run, programs
from infopro.trained_network import load_network

CPU = torch.device("cpu")
MODELS = {  # a library's network each; the transformer is built for one size, the U-Net learns masks
    "torchvision": ("torchvision/shufflenet_v2_x0_5", []),
    "timm": ("timm/test_vit", ["--image-size", "32"]),
    "smp": ("smp/unet/tu-test_resnet", ["--data", "digits-on-photos-masks", "--limit-test", "8"]),
}
ELSEWHERE = """
import importlib.util, sys
sys.modules["infopro"] = None  # any import of it fails
import torch
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
found = {}
for name, images in load_file("images.safetensors").items():
    kind, _, folder = name.partition(":")
    if kind == "load":
        spec = importlib.util.spec_from_file_location(folder, f"{folder}/load.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.load()
    elif kind == "timm":
        import timm
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    else:
        model = torch.export.load(f"{folder}/model.pt2").module()
    with torch.no_grad():
        found[name] = model(images)
save_file(found, "logits.safetensors")
"""


@pytest.fixture(scope="module")
def runs(trained_run, tmp_path_factory):
    """Runs of a network of each library, and of one of our own."""
    folder = tmp_path_factory.mktemp("runs")
    data = ["--data", str(trained_run.parent / "colours.npz"), "--objective", "end-to-end"]
    few = ["--num-modules", "1", "--epochs", "1", "--batch-size", "24", "--limit-train", "24"]
    for name, (model, options) in MODELS.items():
        given = [*data, *few, "--model", model, "--device", "cpu", *options]
        assert main(["train", *given, "--output", str(folder / name)]) == 0
    return {**{name: folder / name for name in MODELS}, "own": trained_run}


def logits_of(run, images):
    """Of the run's network, in the memory format that loading gives: each has kernels that round alike."""
    network = load_network(run, device=CPU)
    with torch.no_grad():
        output = network.model.to(memory_format=torch.contiguous_format).eval()(images)
    return network.task.logits(output)


def images_of(run, number=5):
    shape = load_network(run, device=CPU).image_shape
    return torch.randn(number, *shape, generator=torch.Generator().manual_seed(1))


def test_other_processes_compute_the_same_bits_without_this_package(runs, tmp_path, capsys):
    images, expected = {}, {}
    for name, run in runs.items():
        pt2 = ["--pt2"] if name == "own" else []
        assert main(["export", str(run), "-o", str(tmp_path / name), *pt2]) == 0
        ways = {"own": ["pt2"], "timm": ["load", "timm"]}.get(name, ["load"])
        for way in ways:
            images[f"{way}:{name}"] = images_of(run)
            expected[f"{way}:{name}"] = logits_of(run, images_of(run))
    said = capsys.readouterr().out
    assert "load.py builds it with timm" in said and "load.py needs infopro; model.pt2 does not" in said
    save_file(images, tmp_path / "images.safetensors")
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, check=True)
    found = load_file(tmp_path / "logits.safetensors")
    assert found.keys() == expected.keys() and len(found) == 5
    assert {name: torch.equal(found[name], expected[name]) for name in found} == dict.fromkeys(found, True)


def test_the_folder_says_how_to_build_and_feed_the_network(runs, tmp_path):
    run = runs["torchvision"]
    exported = export_run(run, tmp_path / "new" / "network")
    assert exported.files == ("load.py", "model.json", "model.safetensors") and not exported.needs_infopro
    found = json.loads((exported.folder / "model.json").read_text())
    log = json.loads((run / "log.jsonl").read_text())
    record = json.loads((run / "run.json").read_text())
    assert found["construction"] == {
        "function": "torchvision.models.get_model",
        "arguments": ["shufflenet_v2_x0_5"],
        "options": {"weights": None, "num_classes": 3},
    }
    assert found["test"]["error"] == log["test_error"] and found["run"]["epoch"] == 1
    assert found["input"]["shape"] == ["N", 3, 16, 16] and found["class_names"] == record["class_names"]
    assert found["input"]["preprocessing"][-1] == {
        "step": "normalise",
        "mean": record["mean"],
        "std": record["std"],
    }
    assert found["run"]["configuration"] == json.loads((run / "config.json").read_text())
    weights = (exported.folder / "model.safetensors").read_bytes()
    assert found["weights"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert len((exported.folder / "load.py").read_text().splitlines()) <= 15
    assert stat.S_IMODE((exported.folder / "model.safetensors").stat().st_mode) == stat.S_IMODE(
        (exported.folder / "model.json").stat().st_mode
    )


def test_onnx_agrees_for_any_number_of_images(runs, tmp_path):
    assert main(["export", str(runs["own"]), "-o", str(tmp_path / "out"), "--onnx"]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    for number in (1, 5):
        images = images_of(runs["own"], number)
        (found,) = session.run(["logits"], {"images": images.numpy()})
        np.testing.assert_allclose(found, logits_of(runs["own"], images).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", ["last", "best"])
def test_the_checkpoint_is_the_one_that_is_asked_for(runs, tmp_path, which):
    run = tmp_path / "run"
    shutil.copytree(runs["own"], run)
    first, last = (json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    first["test_error"] = last["test_error"] - 1  # now the first epoch is the best
    (run / "log.jsonl").write_text(json.dumps(first) + "\n" + json.dumps(last) + "\n")
    assert main(["export", str(run), "-o", str(tmp_path / "out"), "--checkpoint", which]) == 0
    found = json.loads((tmp_path / "out" / "model.json").read_text())
    expected = first if which == "best" else last
    assert found["run"]["epoch"] == expected["epoch"] and found["test"]["error"] == expected["test_error"]
    weights = load_file(tmp_path / "out" / "model.safetensors")
    network = load_network(run, device=CPU, best=which == "best").model.state_dict()
    assert all(torch.equal(weights[name], network[name]) for name in network) and len(weights) == len(network)


def test_a_checkpoint_inside_an_epoch_has_no_test(runs, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(runs["own"], run)
    last = sorted((run / "checkpoints").iterdir())[-1]
    state = json.loads((last / "state.json").read_text())
    state["step"] = 7
    del state["checksum"]
    state["checksum"] = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    (last / "state.json").write_text(json.dumps(state))
    last.rename(last.with_name(f"{last.name}-step-000007"))
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 0
    assert "not tested: the checkpoint is of no whole epoch" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "model.json").read_text())["test"] is None


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(["export", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_nothing_is_overwritten_and_nothing_half_written(runs, tmp_path, capsys, monkeypatch):
    (tmp_path / "there").mkdir()
    said = refused(capsys, runs["own"], "-o", tmp_path / "there")
    assert "the folder for the network exists, and nothing is overwritten" in said
    assert "the run folder does not exist" in refused(capsys, tmp_path / "none", "-o", tmp_path / "out")
    assert "output" in refused(capsys, runs["own"])

    def unknown(*arguments, **options):
        raise RuntimeError("no such operation\nand many more lines")

    monkeypatch.setattr(torch.export, "export", unknown)
    said = refused(capsys, runs["own"], "-o", tmp_path / "out", "--pt2")
    assert "demo_resnet cannot be recorded by torch.export: got RuntimeError: no such operation;" in said
    assert sorted(file.name for file in tmp_path.iterdir()) == ["there"]


def test_missing_packages_are_said_before_any_work(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = refused(capsys, runs["own"], "-o", tmp_path / "out", "--onnx")
    assert 'run: pip install "infopro[onnx]"' in said and list(tmp_path.iterdir()) == []
    with pytest.raises(ImportError):
        programs.require_onnx()
