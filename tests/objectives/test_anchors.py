"""Which positions of a dense projection are compared: each class as likely, never void, nothing waits."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from infopro.objectives import InfoPro, supervised_contrastive
from infopro.objectives._anchors import draw_anchors
from infopro.tasks import VOID, Segmentation
from infopro.types import Batch, StageContext

CLASSES = 3


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def masks_of(*shape, void=0.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(CLASSES, shape, generator=generator)
    return masks.masked_fill(torch.rand(shape, generator=generator) < void, VOID)


def draw(projections, masks, most, seed=0):
    torch.manual_seed(seed)
    return draw_anchors(projections, masks, most=most)


def flat(projections):
    return projections.permute(0, 2, 3, 1).flatten(0, 2)


@pytest.mark.parametrize("most", [40, 1000])
def test_all_positions_are_drawn_in_their_order(most):
    projections, masks = random(2, 6, 4, 5), masks_of(2, 4, 5)
    rows, labels = draw(projections, masks, most)
    assert torch.equal(rows, flat(projections)) and torch.equal(labels, masks.flatten())


def test_rows_come_with_their_labels_and_none_comes_twice():
    masks = masks_of(2, 4, 5)
    places = torch.arange(40.0).view(2, 1, 4, 5)
    rows, labels = draw(places, masks, 15)
    drawn = rows[:, 0].long()
    assert rows.shape == (15, 1) and drawn.unique().numel() == 15
    assert torch.equal(labels, masks.flatten()[drawn])


def test_void_comes_last():
    masks = masks_of(2, 4, 5, void=0.6)
    sound = int((masks != VOID).sum())
    for most in (sound - 3, sound, sound + 4):
        _, labels = draw(random(2, 3, 4, 5), masks, most)
        assert (labels == VOID).sum() == max(0, most - sound)
    _, labels = draw(random(2, 3, 4, 5), torch.full_like(masks, VOID), 7)
    assert (labels == VOID).all() and labels.shape == (7,)


def test_classes_are_drawn_evenly_however_rare():
    masks = torch.zeros(1, 40, 50, dtype=torch.int64)  # 1700, 200, 100 pixels
    masks[0, 0:4], masks[0, 4:6] = 1, 2
    drawn = torch.stack(
        [draw(random(1, 1, 40, 50), masks, 60, seed=seed)[1].bincount(minlength=3) for seed in range(200)]
    )
    # with weights of one third each: 20 of a class at first, a little less of the rare as they run out
    assert drawn.double().mean(dim=0).tolist() == pytest.approx([20, 20, 20], abs=3)
    rare = draw(random(1, 1, 40, 50), masks, 600)[1].bincount(minlength=3)
    assert rare[2] > 80 and rare[1] > 120  # nearly all of them


def test_draws_follow_torchs_seed():
    arguments = random(2, 6, 8, 8), masks_of(2, 8, 8), 20
    first, again, other = (draw(*arguments, seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 1), (8, 9), (16, 18), (5, 20)])
def test_masks_are_read_at_the_middle_of_each_position(size):
    masks = masks_of(2, 8, 9, void=0.3)
    _, labels = draw(random(2, 2, *size), masks, 10**6)
    rows, columns = ([int((i + 0.5) * m / s) for i in range(s)] for m, s in zip((8, 9), size, strict=True))
    assert torch.equal(labels, masks[:, rows][:, :, columns].flatten())


def test_no_shape_depends_on_values():
    with FakeTensorMode():  # which has none
        rows, labels = draw_anchors(torch.empty(2, 6, 4, 5), torch.empty(2, 9, 11, dtype=torch.int64), most=7)
    assert rows.shape == (7, 6) and labels.shape == (7,)


def test_gradients_reach_the_drawn_positions_only():
    projections = random(2, 6, 8, 8).requires_grad_()
    rows, _ = draw(projections, masks_of(2, 8, 8), 20)
    rows.sum().backward()
    assert torch.equal(projections.grad.unique(), torch.tensor([0.0, 1.0]))
    assert (projections.grad.sum(dim=1) > 0).sum() == 20


# What the objective makes of them.

CONTEXT = StageContext(index=0, num_stages=3, feature_shape=(6, 4, 5), image_shape=(3, 8, 10))
TASK = Segmentation(num_classes=CLASSES)


def loss_of(masks, features=None, gather=None, **options):
    """The contrastive loss of a stage in evaluation mode, and what its head projects."""
    torch.manual_seed(5)
    objective = InfoPro(task_loss="contrast", reconstruction_weight=None, task_head="0c1f", **options)
    stage = objective.build(CONTEXT, TASK).double().eval()
    stage.gather = gather
    features = random(len(masks), 6, 4, 5, dtype=torch.float64) if features is None else features
    batch = Batch(images=torch.zeros(len(masks), 3, 8, 10), targets=masks)
    return stage(features, batch)["task"], flat(stage.heads["task"](features))


def seen(masks):
    """Of masks of twice the map's side, what its positions are."""
    return masks[:, 1::2, 1::2].flatten()


def test_every_position_and_no_void_is_the_plain_loss():
    masks = masks_of(2, 8, 10)
    loss, rows = loss_of(masks)
    torch.testing.assert_close(loss, supervised_contrastive(rows, seen(masks)))


def test_void_does_not_count():
    masks = masks_of(2, 8, 10, void=0.4)
    loss, rows = loss_of(masks)
    sound = seen(masks) != VOID
    assert 0 < sound.sum() < sound.numel()
    torch.testing.assert_close(loss, supervised_contrastive(rows[sound], seen(masks)[sound]))


def test_void_alone_gives_zero_with_a_gradient_of_zero():
    features = random(2, 6, 4, 5, dtype=torch.float64).requires_grad_()
    loss, _ = loss_of(torch.full((2, 8, 10), VOID), features)
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(features.grad, torch.zeros_like(features))


def test_fewer_anchors_are_the_loss_of_what_is_drawn():
    masks = masks_of(2, 8, 10, void=0.2)
    loss, rows = loss_of(masks, anchors=12)
    whole, _ = loss_of(masks)
    torch.manual_seed(5)
    InfoPro(task_loss="contrast", reconstruction_weight=None, task_head="0c1f").build(CONTEXT, TASK)
    projections = rows.view(2, 4, 5, -1).permute(0, 3, 1, 2)
    drawn, labels = draw_anchors(projections, masks, most=12)
    assert not torch.equal(loss, whole)
    torch.testing.assert_close(loss, supervised_contrastive(drawn, labels, counted=labels != VOID))


def test_parts_of_a_batch_that_are_gathered_are_the_batch():
    masks, features = masks_of(4, 8, 10, void=0.3), random(4, 6, 4, 5, dtype=torch.float64)
    whole, _ = loss_of(masks, features)
    _, other = loss_of(masks[2:], features[2:])

    def gather(rows, labels):
        return torch.cat([rows, other]), torch.cat([labels, seen(masks[2:])])

    part, _ = loss_of(masks[:2], features[:2], gather=gather)
    torch.testing.assert_close(part, whole)


def test_the_head_projects_every_position():
    torch.manual_seed(0)
    stage = InfoPro(task_loss="contrast", projection_size=7).build(CONTEXT, TASK)
    assert stage.heads["task"](random(2, 6, 4, 5)).shape == (2, 7, 4, 5)
    assert stage.heads["task"].layers[0].kernel_size == (3, 3)


def test_contrast_pulls_the_pixels_of_a_class_together():
    torch.manual_seed(0)
    features = random(2, 6, 4, 5).requires_grad_()
    masks = (torch.arange(8) // 4).view(1, 8, 1).expand(2, 8, 10)
    stage = InfoPro(task_loss="contrast", reconstruction_weight=None, task_head="0c1f").build(CONTEXT, TASK)
    before = margin(stage.heads["task"](features), masks)
    optimizer = torch.optim.Adam([features, *stage.parameters()], lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        stage(features, Batch(torch.zeros(2, 3, 8, 10), masks))["total"].backward()
        optimizer.step()
    assert margin(stage.heads["task"](features), masks) > before + 0.2


def margin(projections, masks):
    """How much more similar two pixels of a class are than two of different classes."""
    unit, same = F.normalize(flat(projections), dim=1), seen(masks)[:, None] == seen(masks)
    similarity = unit @ unit.T
    return similarity[same].mean() - similarity[~same].mean()
