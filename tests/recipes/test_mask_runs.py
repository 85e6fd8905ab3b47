"""Runs on masks: from a configuration to a log, a resumed run, an evaluation, examples and a report."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from infopro import recipes
from infopro.data import MaskFiles, MaskTensors
from infopro.errors import BadConfiguration, BadData, BadRun, NotYetSupported
from infopro.prediction import Inference, evaluate_dense
from infopro.recipes import RunConfig
from infopro.recipes._mask_examples import mask_examples
from infopro.recipes._single_images import refuse_single_images
from infopro.recipes._task import make_testable
from infopro.run_report import report_runs
from infopro.training.evaluation import evaluate_data, evaluate_through
from infopro.training.reading import Reading, padded, plain_batches

CPU = torch.device("cpu")
CONFIG = RunConfig(
    model="torchvision/lraspp_mobilenet_v3_large",
    data="digits-on-photos-masks",
    objective="infopro-softmax",
    num_modules=2,
    reconstruction_weight=1.0,
    task_weight=1.0,
    epochs=2,
    batch_size=8,
    learning_rate=0.05,
    schedule="poly",
    warmup_epochs=0.0,
    crop=(24, 28),
    scale=(0.5, 2.0),
    limit_train=32,
    limit_test=12,
)


@pytest.fixture(scope="module")
def data():
    return recipes.prepare_data(CONFIG, data_dir=None, download=False, device=CPU)


def trained(path, data, config=CONFIG, *, resume=False, stop=lambda: False):
    session = recipes.prepare(config, data, device=CPU, stop=stop)
    folder, checkpoint = recipes.open_run(session, path, name="masks", resume=resume, data_dir=None)
    start = recipes.restore(session, folder, checkpoint)
    return session, recipes.train_run(session, folder, start=start)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("masks") / "run"
    session, records = trained(path, data)
    return path, session, records


def test_images_are_trained_on_as_crops_and_tested_whole(data):
    assert data.image_shape == (3, 24, 28) and data.test.images.shape[2:] == (32, 32)
    assert (data.augmentation.crop, data.augmentation.scale) == ((24, 28), (0.5, 2.0))


def test_the_log_has_the_mean_intersection_over_union(run, data):
    path, session, records = run
    logged = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    assert [line["test_error"] for line in logged] == [record.test_error for record in records]
    scores = logged[-1]["extra"]
    assert scores["mean_iou"] == pytest.approx(100 - logged[-1]["test_error"])
    assert len(scores["class_iou"]) == 11
    metric = MulticlassJaccardIndex(11, average="macro", ignore_index=255)
    images = (data.test.images / 255 - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(
        3, 1, 1
    )
    with torch.no_grad():
        logits = session.local.model.eval()(images)["out"]
    assert scores["mean_iou"] == pytest.approx(100 * metric(logits, data.test.masks.long()).item(), abs=0.5)


def test_the_evaluation_of_the_folder_is_the_logs(run):
    path, _, records = run
    state, found = recipes.evaluate_run(path, data_dir=None, download=False, device=CPU)
    assert (state.epoch, found.error, found.num_images) == (2, records[-1].test_error, 12)
    assert found.scores == records[-1].extra


def test_a_run_that_was_stopped_within_an_epoch_goes_on_bit_for_bit(run, tmp_path, data):
    asked = iter([False] * 6 + [True])
    trained(tmp_path / "run", data, stop=lambda: next(asked))
    _, undisturbed, records = run
    resumed, again = trained(tmp_path / "run", data, resume=True)
    timeless = {"seconds": 0.0, "images_per_second": 0.0}
    assert [asdict(replace(r, **timeless)) for r in again] == [
        asdict(replace(r, **timeless)) for r in records
    ]
    expected = undisturbed.local.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.local.state_dict().items())


def network_input(data, images):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    return (images / 255 - mean) / std


def test_test_images_are_padded_to_what_the_network_takes():
    """LinkNet wants multiples of 32; test images of 40 x 44 are judged at their own pixels only."""
    config = replace(CONFIG, model="smp/linknet/resnet18", image_size=(40, 44), crop=(32, 32), limit_test=5)
    data = recipes.prepare_data(config, data_dir=None, download=False, device=CPU)
    session = recipes.prepare(config, data, device=CPU)
    model, task = session.local.model, session.local.task
    larger = F.pad(network_input(data, data.test.images), (0, 64 - 44, 0, 64 - 40))
    with torch.no_grad():
        predicted = model.eval()(larger)[..., :40, :44].argmax(1)
    assert predicted.unique().numel() > 1
    metric = MulticlassJaccardIndex(11, average="macro", ignore_index=255)
    expected = pytest.approx(100 * metric(predicted, data.test.masks.long()).item(), abs=1e-3)
    reading = Reading(data, session.engine, batch_size=4, seed=0, device=CPU, num_workers=0)
    while_training = evaluate_through(session.engine, reading, epoch=1, precision=torch.float32)
    afterwards = evaluate_data(model, task, data, device=CPU)
    inference = Inference(multiple_of=data.multiple_of, smallest=data.smallest)
    batches = plain_batches(data.test, data, batch_size=5, device=CPU)
    looked_at = evaluate_dense(model, task, batches, inference=inference)
    for found in (while_training, afterwards, looked_at):
        assert found.scores["mean_iou"] == expected and found.num_images == 5


def test_padding_is_zeros_and_void_below_and_on_the_right(data):
    batch = torch.ones(2, 3, 5, 6), torch.ones(2, 5, 6, dtype=torch.int64)
    wanting = replace(data, multiple_of=4, smallest=16)
    ((images, masks),) = padded(iter([batch]), wanting)
    assert images.shape == (2, 3, 16, 16) and masks.shape == (2, 16, 16)
    assert images.sum() == 2 * 3 * 5 * 6 and (masks != 255).sum() == 2 * 5 * 6
    assert (images[..., :5, :6] == 1).all() and (masks[:, :5, :6] == 1).all()
    ((images, masks),) = padded(iter([batch]), replace(wanting, multiple_of=1, smallest=1))
    assert images is batch[0] and masks is batch[1]


def test_examples_are_what_the_network_and_its_heads_say(run, data):
    path, session, _ = run
    found, local = recipes.read_mask_examples(path), session.local
    middle = data.test.images[:, :, 4:28, 2:30][[0, 2, 4, 7, 9, 11]]  # evenly spread over 12
    assert np.array_equal(found.images, middle.permute(0, 2, 3, 1).numpy())
    assert np.array_equal(found.truth, data.test.masks[:, 4:28, 2:30][[0, 2, 4, 7, 9, 11]].numpy())
    normalised = (middle / 255 - local.task.mean.view(3, 1, 1)) / local.task.std.view(3, 1, 1)
    with torch.no_grad():
        local.eval()
        prediction = local.model(normalised)["out"].argmax(1)
        flow = local.stages[0].part(local.start((normalised,)))
        features = local.stages[0].part.boundary(flow)
        own = F.interpolate(local.stages[0].heads["task"](features), (24, 28), mode="bilinear").argmax(1)
        drawn = local.stages[0].heads["reconstruction"](features)
    assert set(found.predictions) == {"network", "module 1"}
    assert np.array_equal(found.predictions["network"], prediction.numpy())
    assert np.array_equal(found.predictions["module 1"], own.numpy())
    close = abs(found.reconstructions["module 1"] / 255 - drawn.permute(0, 2, 3, 1).numpy())
    assert close.max() <= 0.51 / 255


def test_an_image_smaller_than_the_crop_is_padded_with_void(data):
    config = replace(CONFIG, crop=(40, 20), limit_train=8)
    larger = recipes.prepare_data(config, data_dir=None, download=False, device=CPU)
    found = mask_examples(recipes.prepare(config, larger, device=CPU))
    assert found.truth.shape == (6, 40, 20)
    assert (found.truth[:, [0, 3, -4, -1]] == 255).all() and (found.truth[:, 4:36] != 255).all()


def test_the_report_shows_the_pictures(run, tmp_path):
    path, *_ = run
    page = report_runs([path], output=tmp_path / "report.html").read_text()
    section = page[page.index('id="predictions"') :]
    section = section[: section.index("</section>")]
    assert section.count("<img ") == 5 * 6, "image, truth, prediction, module 1's own, its drawing"
    assert "background" in section and "not labelled" not in section


def test_damaged_examples_are_named(tmp_path):
    (tmp_path / "examples.npz").write_bytes(b"PK\x03\x04 not")
    with pytest.raises(BadRun, match=r"examples\.npz is damaged"):
        recipes.read_mask_examples(tmp_path)
    (tmp_path / "examples.npz").unlink()
    assert recipes.read_mask_examples(tmp_path) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "demo_resnet"}, "demo_resnet predicts a class per image: got digits-on-photos-masks"),
        ({"data": "digits-on-photos", "crop": None, "scale": None}, "predicts a class per pixel"),
        ({"data": "digits-on-photos"}, "crop is for data with masks: got digits-on-photos"),
        ({"parallel": "cached"}, "masks are not learnt in this way: got parallel 'cached'"),
        ({"parallel": "pipeline"}, "a pipeline tests on images of the size that it is trained on"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(options, message):
    with pytest.raises(BadConfiguration, match=message):
        recipes.prepare_data(replace(CONFIG, **options), data_dir=None, download=False, device=CPU)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model": "smp/dpt/tu-vit_tiny_patch16_224", "crop": (224, 224)},
            "got 224x224 in training, test images of 32x32",
        ),
        (
            {"parallel": "pipeline"},
            "a pipeline is tested on images of the size that it is trained on: got 32x32 in tr",
        ),
    ],
)
def test_networks_and_pipelines_of_one_size_need_test_images_of_it(data, options, message):
    config = replace(CONFIG, **options)
    other = replace(data, image_shape=(3, *config.crop) if "crop" in options else (3, 32, 32))
    if "crop" not in options:
        other = replace(other, test=MaskTensors(data.test.images[..., :30], data.test.masks[..., :30]))
    with pytest.raises(BadConfiguration, match=message):
        make_testable(config, other)
    fitting = replace(data, image_shape=(3, 32, 32))
    assert make_testable(replace(config, model=CONFIG.model), fitting).multiple_of == 1


def test_images_of_several_sizes_need_a_crop_before_a_run_is_begun(tmp_path):
    for number, side in enumerate((32, 33, 34, 35, 36)):
        for kind, shape in (("images", (side, 32, 3)), ("masks", (side, 32))):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            values = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8) % 2
            Image.fromarray(values).save(tmp_path / "set" / kind / f"{number}.png")
    config = replace(CONFIG, data=str(tmp_path / "set"), crop=None, scale=None)
    options = {"data_dir": None, "download": False, "device": CPU}
    with pytest.raises(BadConfiguration, match="no common size: got no crop; pass crop"):
        recipes.prepare_data(config, **options)
    assert recipes.prepare_data(replace(config, image_size=32), **options).image_shape == (3, 32, 32)
    assert recipes.prepare_data(replace(config, crop=(24, 24)), **options).image_shape == (3, 24, 24)


def test_masks_without_any_class_are_refused(data):
    void = MaskTensors(data.test.images, torch.full_like(data.test.masks, 255))
    with pytest.raises(BadData, match="no pixel of the test images of digits-on-photos-masks has a class"):
        make_testable(CONFIG, replace(data, test=void))
    with pytest.raises(BadData, match="of the training and the test images"):
        make_testable(CONFIG, replace(data, train=void, test=void))


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"limit_train": 1}])
def test_a_network_that_normalises_single_values_is_not_trained_on_one_image(data, options):
    model = "torchvision/deeplabv3_mobilenet_v3_large"
    config = replace(CONFIG, model=model, objective="end-to-end", num_modules=1, **options)
    part = replace(data, train=data.train.take(torch.arange(options.get("limit_train", 32))))
    with pytest.raises(BadConfiguration, match=r"cannot be trained on one image.*two images or more"):
        recipes.prepare(config, part, device=CPU)


def test_trying_one_image_leaves_network_and_random_numbers_alone(data):
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm2d(3)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    config, example = replace(CONFIG, batch_size=1), torch.rand(4, 3, 8, 8)
    state = torch.get_rng_state()
    refuse_single_images(config, model, data, example, replicas=1)
    assert torch.equal(torch.get_rng_state(), state) and not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    single = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.BatchNorm2d(3))
    with pytest.raises(BadConfiguration, match="processes 4"):
        refuse_single_images(replace(CONFIG, batch_size=4), single, data, example, replicas=4)
    refuse_single_images(replace(CONFIG, batch_size=8), single, data, example, replicas=4)
    shared = replace(CONFIG, batch_size=4, synchronise_batch_norm=True)
    refuse_single_images(shared, single, data, example, replicas=4)


def test_processes_do_not_begin_what_they_cannot_test_together(data):
    files = MaskFiles(Path("nowhere"), ("a.png", "b.png"), ("a.png", "b.png"), classes={0: 0})
    mixed, example = replace(data, test=files), torch.rand(4, 3, 8, 8)
    with pytest.raises(NotYetSupported, match=r"several sizes.*got 2 processes.*image_size"):
        refuse_single_images(CONFIG, torch.nn.Identity(), mixed, example, replicas=2)
    refuse_single_images(CONFIG, torch.nn.Identity(), mixed, example, replicas=1)
    one_size = replace(mixed, test=replace(files, own_size=(8, 8)))
    refuse_single_images(CONFIG, torch.nn.Identity(), one_size, example, replicas=2)


def test_what_is_trained_on_and_tested_is_said(run):
    _, session, _ = run
    assert "32 training images, crops of 3x24x28, and 12 whole test images" in recipes.describe(session)


def test_class_weights_are_one_per_class(data):
    with pytest.raises(BadConfiguration, match="weight"):
        recipes.prepare(replace(CONFIG, class_weights=(1.0, 2.0)), data, device=CPU)


def test_options_reach_the_task(data):
    weights = tuple(float(number) for number in range(11))
    config = replace(CONFIG, class_weights=weights, hard_pixels=0.6, auxiliary_weight=0.2)
    task = recipes.make_task(config, num_classes=11, has_masks=True, image_shape=data.image_shape)
    assert task.class_weights.tolist() == list(weights) and task.auxiliary_weight == 0.2
    assert (task.hard_pixels.threshold, task.hard_pixels.least) == (0.6, 8 * 24 * 28 // 16)
