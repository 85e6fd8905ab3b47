"""What every objective must do, whatever file it comes from."""

import json
import pickle

import pytest
import torch

from infopro.errors import BadConfiguration, UnknownName
from infopro.objectives import from_name, list_objectives
from infopro.tasks import VOID, Classification, Segmentation
from infopro.types import Batch, StageContext

BATCH, CLASSES = 4, 3
IMAGE_SHAPE = (3, 8, 8)
LAYOUTS = {"map": (5, 4, 4), "class token": (17, 5), "channels last": (4, 4, 5), "vector": (5,)}
TASKS = {"images": Classification(num_classes=CLASSES), "pixels": Segmentation(num_classes=CLASSES)}

every_objective = pytest.mark.parametrize("name", list_objectives())
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_task = pytest.mark.parametrize("task", TASKS)


def build(name, layout="map", task="images", **options):
    """A stage in the middle of a network, or the only one where the method allows no other."""
    torch.manual_seed(0)
    objective = from_name(name, **options)
    num_stages = objective.num_modules or 3
    index = min(1, num_stages - 1)
    context = StageContext(index, num_stages, feature_shape(name, layout, task), IMAGE_SHAPE)
    return objective.build(context, TASKS[task])


def losses_of(stage, features, batch):
    """From one random state: what a stage draws (dropout, anchors) is then the same each time."""
    torch.manual_seed(3)
    return stage(features, batch)


def last_stage(name, task="images"):
    context = StageContext(0, 1, output_shape(task), IMAGE_SHAPE)
    return from_name(name).build(context, TASKS[task])


def output_shape(task):
    return (CLASSES,) if task == "images" else (CLASSES, 4, 4)


def feature_shape(name, layout, task="images"):
    return output_shape(task) if from_name(name).num_modules == 1 else LAYOUTS[layout]


def features_of(name, layout="map", task="images", dtype=torch.float32):
    generator, shape = torch.Generator().manual_seed(1), feature_shape(name, layout, task)
    return torch.randn(BATCH, *shape, generator=generator, dtype=dtype).requires_grad_()


def batch(task="images", dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(BATCH, *IMAGE_SHAPE, generator=generator, dtype=dtype)
    if task == "images":
        return Batch(images=images, targets=torch.tensor([0, 1, 1, 0]))
    masks = torch.randint(CLASSES, (BATCH, *IMAGE_SHAPE[1:]), generator=generator)
    masks[0, :3] = VOID
    return Batch(images=images, targets=masks)


@every_objective
@every_layout
@every_task
def test_losses_are_finite_scalars_and_reach_features_and_heads(name, layout, task):
    stage, features = build(name, layout, task), features_of(name, layout, task)
    losses = stage(features, batch(task))
    for value in losses.values():
        assert value.shape == () and value.isfinite() and value.dtype == torch.float32
    losses["total"].backward()
    assert [parameter for parameter, value in stage.named_parameters() if value.grad is None] == []
    assert features.grad.isfinite().all() and features.grad.abs().sum() > 0


@every_objective
@every_task
def test_losses_carry_the_names_of_the_heads(name, task):
    stage = build(name, task=task)
    losses = stage(features_of(name, task=task), batch(task))
    assert list(losses) == [*(stage.heads or ["task"]), "total"]


@every_objective
@every_task
def test_last_stage_has_no_heads(name, task):
    stage = last_stage(name, task)
    assert list(stage.parameters()) == [] and len(stage.heads) == 0


@every_objective
@every_task
def test_gradient_is_the_derivative(name, task):
    stage, features = build(name, task=task).double(), features_of(name, task=task, dtype=torch.float64)
    images = batch(task, torch.float64)
    assert torch.autograd.gradcheck(lambda x: losses_of(stage, x, images)["total"], (features,))


@every_objective
@every_task
def test_batch_is_neither_changed_nor_differentiated(name, task):
    seen = batch(task)
    seen.images.requires_grad_()
    build(name, task=task)(features_of(name, task=task), seen)["total"].backward()
    assert torch.equal(seen.images, batch(task).images)
    assert torch.equal(seen.targets, batch(task).targets)
    assert seen.images.grad is None


@every_objective
@every_task
@pytest.mark.parametrize("last", [False, True])
def test_images_that_are_not_read_change_no_loss(name, task, last):
    stage = last_stage(name, task) if last else build(name, task=task)
    if stage.reads_images:
        return
    seen = batch(task)
    features = torch.rand(BATCH, *output_shape(task)) if last else features_of(name, task=task)
    unreadable = Batch(images=torch.full_like(seen.images, torch.nan), targets=seen.targets)
    losses, same = losses_of(stage, features, seen), losses_of(stage, features, unreadable)
    assert losses.keys() == same.keys() and all(torch.equal(losses[loss], same[loss]) for loss in losses)


def test_only_a_decoder_reads_images():
    assert build("infopro-softmax").reads_images and build("infopro-contrast").reads_images
    assert not build("greedy").reads_images and not last_stage("infopro-softmax").reads_images
    assert not build("infopro-softmax", reconstruction_weight=None).reads_images


@every_objective
@every_task
def test_same_input_same_loss(name, task):
    stages = [build(name, task=task) for _ in range(2)]
    first, second = (losses_of(stage, features_of(name, task=task), batch(task)) for stage in stages)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[loss], second[loss]) for loss in first)


@every_objective
@every_task
def test_state_dict_holds_the_heads_and_comes_back(name, task):
    first, second = build(name, task=task), build(name, task=task)
    assert all(key.startswith("heads.") for key in first.state_dict())
    with torch.no_grad():
        for value in second.parameters():
            value.mul_(1.5)
    second.load_state_dict(first.state_dict())
    totals = [losses_of(s, features_of(name, task=task), batch(task))["total"] for s in (first, second)]
    assert torch.equal(*totals)


@every_objective
@every_task
def test_pickles(name, task):
    objective, stage = from_name(name), build(name, task=task)
    assert pickle.loads(pickle.dumps(objective)) == objective
    copy = pickle.loads(pickle.dumps(stage))
    totals = [losses_of(s, features_of(name, task=task), batch(task))["total"] for s in (stage, copy)]
    assert torch.equal(*totals)


@every_objective
@every_layout
@every_task
def test_losses_are_float32_under_autocast(name, layout, task):
    stage, features = build(name, layout, task), features_of(name, layout, task)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(stage, features.bfloat16(), batch(task))
    losses["total"].backward()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    assert features.grad.isfinite().all() and features.grad.abs().sum() > 0
    exact = losses_of(build(name, layout, task), features_of(name, layout, task), batch(task))
    assert all(value.item() == pytest.approx(exact[loss].item(), rel=0.1) for loss, value in losses.items())


@every_objective
@every_task
def test_works_in_evaluation_mode(name, task):
    stage = build(name, task=task).eval()
    before = {key: value.clone() for key, value in stage.state_dict().items()}
    assert stage(features_of(name, task=task), batch(task))["total"].isfinite()
    assert all(torch.equal(value, before[key]) for key, value in stage.state_dict().items())


@every_objective
def test_masks_of_void_train_nothing(name):
    features, sound = features_of(name, task="pixels"), batch("pixels")
    void = Batch(images=sound.images, targets=torch.full_like(sound.targets, VOID))
    loss = build(name, task="pixels")(features, void)["task"]
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(features.grad, torch.zeros_like(features))


@every_objective
def test_description_is_plain_and_gives_the_objective_again(name):
    objective = from_name(name)
    description = objective.describe()
    assert description["name"] == name
    assert from_name(**json.loads(json.dumps(description))) == objective


@every_objective
def test_unknown_options_list_the_allowed(name):
    with pytest.raises(BadConfiguration, match=f"unknown option of {name}: got speed; allowed: "):
        from_name(name, speed=3)


def test_option_that_contradicts_the_name_is_refused():
    with pytest.raises(BadConfiguration, match="contradicts the name infopro-softmax: got 'contrast'"):
        from_name("infopro-softmax", task_loss="contrast")


def test_unknown_names_list_the_near_ones():
    with pytest.raises(UnknownName, match="got 'infopro-soft'; did you mean infopro-softmax"):
        from_name("infopro-soft")
    for name in ("greedy", "dgl", "infopro-softmax"):
        with pytest.raises(UnknownName, match="unknown task head: got '9c'"):
            from_name(name, task_head="9c")
    with pytest.raises(UnknownName, match="unknown decoder: got 'cifa'; did you mean cifar"):
        from_name("infopro-contrast", decoder="cifa")


def test_the_published_objectives_are_listed():
    assert {"dgl", "end-to-end", "greedy", "infopro-contrast", "infopro-softmax"} <= set(list_objectives())
