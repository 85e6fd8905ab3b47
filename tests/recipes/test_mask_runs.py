"""Runs on masks: from a configuration to a log, a resumed run, an evaluation, examples and a report."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.classification import MulticlassJaccardIndex

from infopro import recipes
from infopro.errors import BadConfiguration, BadRun
from infopro.recipes import RunConfig
from infopro.recipes._mask_examples import mask_examples
from infopro.run_report import report_runs

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


def test_class_weights_are_one_per_class(data):
    with pytest.raises(BadConfiguration, match="weight"):
        recipes.prepare(replace(CONFIG, class_weights=(1.0, 2.0)), data, device=CPU)


def test_options_reach_the_task(data):
    weights = tuple(float(number) for number in range(11))
    config = replace(CONFIG, class_weights=weights, hard_pixels=0.6, auxiliary_weight=0.2)
    task = recipes.make_task(config, num_classes=11, has_masks=True, image_shape=data.image_shape)
    assert task.class_weights.tolist() == list(weights) and task.auxiliary_weight == 0.2
    assert (task.hard_pixels.threshold, task.hard_pixels.least) == (0.6, 8 * 24 * 28 // 16)
