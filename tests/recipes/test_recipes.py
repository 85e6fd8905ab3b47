import re
from functools import cache

import pytest
import torch
from torch import nn

from infopro import data, models, objectives, recipes
from infopro.errors import UnknownName
from infopro.recipes import Recipe

ALL = recipes.list_recipes()
PAPER = [name for name in ALL if not name.startswith(("digits-", "study-", "camvid-"))]


@cache
def network(name: str, num_classes: int) -> nn.Module:
    with torch.device("meta"):
        return models.create(name, num_classes=num_classes)


def published(name: str) -> tuple[float, float | None]:
    numbers = recipes.load(name).published
    assert numbers is not None
    return numbers.test_error, numbers.standard_deviation


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("cifar10-resnet32-*", 1 + 5 * 4),  # end to end; K = 2, 3, 4, 8, 16 with four objectives
        ("cifar10-resnet110-*", 1 + 5 * 4 + 3),
        ("cifar10-densenet-bc-100-12-*", 1 + 4 * 4),
        ("svhn-resnet110-*", 1 + 4 * 4),
        ("stl10-resnet110-*", 1 + 4 * 4 + 3),
        ("imagenet-*", 3 * 2),
        ("cityscapes-*", 2 + 1 + 3),  # end to end of 40,000 and 60,000 iterations, DGL, InfoPro
        ("*-balanced-*", 3 + 3 + 3 + 3),
        ("*-end-to-end", 5 + 3 + 1 + 2 + 2 + 1),
        ("digits-demo-*", 6),
        ("study-*", 2 * (1 + 3 * 5)),
    ],
)
def test_every_cell_of_the_tables_is_a_recipe(pattern: str, count: int) -> None:
    assert len(recipes.list_recipes(pattern)) == count


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_is_sound(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.name == name and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name)
    assert recipes.problems(recipe.config) == []
    assert recipe.config.objective in objectives.list_objectives()
    assert name.endswith(recipe.config.objective) or name.endswith("-no-reconstruction")
    assert f"-k{recipe.config.num_modules}-" in name or recipe.config.num_modules == 1
    assert recipe.config.data in {*data.list_data(), "imagenet"}


@pytest.mark.parametrize("name", ALL)
def test_the_cuts_are_blocks_of_the_network_in_order(name: str) -> None:
    config = recipes.load(name).config
    positions = {block: i for i, (block, _) in enumerate(network(config.model, 10).named_modules())}
    cuts = config.cuts or ()
    assert len(cuts) == config.num_modules - 1 or config.cuts is None
    where = [positions[cut] for cut in cuts]
    assert where == sorted(set(where))


@pytest.mark.parametrize("name", PAPER)
def test_numbers_of_the_paper_are_with_their_cells_and_gaps_are_named(name: str) -> None:
    recipe = recipes.load(name)
    notes = " ".join(recipe.notes)
    assert (recipe.published is None) == ("-k3-" in name and "balanced" not in name)
    assert (recipe.published is None) == ("a test error is not" in notes)
    assert ("softmax variant are not published" in notes) == (
        recipe.config.objective == "infopro-softmax" and not name.startswith(("imagenet", "cityscapes"))
    )
    assert ("the cuts are not published" in notes) == ("densenet" in name and recipe.config.num_modules > 1)
    assert "2101.10832" in recipe.source


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10-resnet32-end-to-end", (7.37, 0.10)),
        ("cifar10-resnet32-k4-infopro-contrast", (8.58, 0.17)),
        ("cifar10-resnet32-k4-greedy", (16.07, 0.46)),
        ("cifar10-resnet32-k16-dgl", (16.21, 0.36)),
        ("cifar10-resnet110-k2-infopro-contrast", (6.42, 0.08)),
        ("cifar10-resnet110-k4-balanced-infopro-contrast", (6.93, 0.20)),
        ("cifar10-resnet110-k16-greedy", (18.92, 1.27)),
        ("cifar10-densenet-bc-100-12-k8-infopro-softmax", (6.44, 0.11)),
        ("svhn-resnet110-k4-infopro-softmax", (3.72, 0.03)),
        ("stl10-resnet110-k2-balanced-infopro-contrast", (20.95, 0.57)),
        ("stl10-resnet110-k16-infopro-contrast", (26.27, 0.48)),
        ("imagenet-resnet152-k2-balanced-infopro-softmax", (21.45, None)),
        ("cityscapes-deeplabv3-resnet101-k2-balanced-infopro-softmax", (20.63, None)),  # mIoU 79.37
        ("cityscapes-deeplabv3-resnet101-k2-dgl", (21.85, None)),
    ],
)
def test_published_errors(name: str, expected: tuple[float, float | None]) -> None:
    assert published(name) == expected


@pytest.mark.parametrize(
    ("name", "lambdas"),  # as published: ixx_1, ixy_1, ixx_2, ixy_2
    [
        ("cifar10-resnet32-k4-infopro-contrast", (6, 0, 1, 2)),
        ("cifar10-resnet32-k16-infopro-contrast", (5, 0.05, 0.2, 0.5)),
        ("cifar10-resnet110-k4-infopro-contrast", (1, 0, 0, 1)),
        ("cifar10-resnet110-k4-infopro-softmax", (1, 0, 0, 1)),
        ("cifar10-resnet110-k3-infopro-contrast", (1, 0, 0, 1)),  # not published: those of K = 4
        ("cifar10-densenet-bc-100-12-k16-infopro-contrast", (5, 0, 0.5, 1)),  # not published: ResNet-110's
        ("svhn-resnet110-k8-infopro-contrast", (5, 0, 0.5, 2)),
        ("stl10-resnet110-k4-balanced-infopro-contrast", (20, 0.5, 10, 1)),
    ],
)
def test_published_weights(name: str, lambdas: tuple[float, float, float, float]) -> None:
    config = recipes.load(name).config
    assert config.reconstruction_weight == (lambdas[0], lambdas[2])
    assert config.task_weight == (lambdas[1], lambdas[3])


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("cifar10-resnet32-k4-greedy", ["layer1.2", "layer2.1", "layer3.0"]),
        ("cifar10-resnet32-k3-dgl", ["layer1.4", "layer2.4"]),
        ("cifar10-resnet110-k4-dgl", ["layer1.11", "layer2.7", "layer3.3"]),
        ("cifar10-resnet110-k4-balanced-infopro-contrast", ["layer1.6", "layer1.14", "layer2.8"]),
        ("stl10-resnet110-k3-balanced-infopro-contrast", ["layer1.8", "layer2.1"]),
        ("cifar10-densenet-bc-100-12-k2-dgl", ["features.denseblock2.denselayer8"]),
        ("imagenet-resnet101-k2-balanced-infopro-softmax", ["layer2.0"]),
        ("imagenet-resnet152-k2-balanced-infopro-softmax", ["layer2.5"]),
        ("imagenet-resnext101-32x8d-k2-balanced-infopro-softmax", ["layer2.2"]),
        ("cityscapes-deeplabv3-resnet101-k2-balanced-640x1280-infopro-softmax", ["backbone.layer3.12"]),
        ("cityscapes-deeplabv3-resnet101-k2-dgl", ["backbone.layer3.12"]),
    ],
)
def test_published_cuts(name: str, cuts: list[str]) -> None:
    assert list(recipes.load(name).config.cuts or ()) == cuts


def test_resnet32_in_16_modules_has_its_stem_as_a_module() -> None:
    cuts = recipes.load("cifar10-resnet32-k16-greedy").config.cuts
    assert cuts is not None and cuts[0] == "relu" and cuts[1] == "layer1.0" and cuts[-1] == "layer3.3"
    assert len(cuts) == 15


@pytest.mark.parametrize("num_modules", [2, 4, 8, 16])
def test_densenets_modules_have_equally_many_dense_layers(num_modules: int) -> None:
    cuts = recipes.load(f"cifar10-densenet-bc-100-12-k{num_modules}-greedy").config.cuts
    layers = [n for n, _ in network("cifar_densenet_bc_100_12", 10).named_modules() if "denselayer" in n]
    layers = [name for name in layers if name.count(".") == 2]
    assert [layers.index(cut) + 1 for cut in cuts or ()] == [
        48 // num_modules * k for k in range(1, num_modules)
    ]


def options(recipe: Recipe) -> tuple[int, int, float, float, int | None]:
    config = recipe.config
    return config.epochs, config.batch_size, config.learning_rate, config.warmup_epochs, config.image_size


@pytest.mark.parametrize("name", [name for name in PAPER if not name.startswith("cityscapes")])
def test_training_options_of_each_data_set(name: str) -> None:
    expected = {
        "cifar10": (160, 1024, 0.8, 10.0, None),
        "svhn": (160, 1024, 0.8, 10.0, None),
        "stl10": (160, 128, 0.1, 10.0, None),
        "imagenet": (90, 512 if "resnext" in name else 1024, 0.4, 0.0, 224),
    }
    recipe = recipes.load(name)
    assert options(recipe) == expected[recipe.config.data]
    config = recipe.config
    assert (config.optimizer, config.momentum, config.nesterov, config.weight_decay) == (
        "sgd",
        0.9,
        True,
        1e-4,
    )


@pytest.mark.parametrize(
    ("name", "lambdas", "crop", "batch", "rate", "epochs", "memory", "iterations"),
    [
        ("60k-end-to-end", (None, 1), (512, 1024), 8, 0.01, 161, 19.43, "59,892"),
        ("k2-dgl", (None, 1), (512, 1024), 8, 0.01, 108, None, "40,176"),
        ("k2-balanced-infopro-softmax", (1.5, 1), (512, 1024), 8, 0.01, 108, 12.01, "40,176"),
        ("k2-balanced-batch12-infopro-softmax", (1, 0.1), (512, 1024), 12, 0.015, 161, 16.62, "39,928"),
        ("k2-balanced-640x1280-infopro-softmax", (2, 1), (640, 1280), 8, 0.015, 108, 17.00, "40,176"),
    ],
)
def test_training_options_of_cityscapes(
    name: str,
    lambdas: tuple[float | None, float],
    crop: tuple[int, int],
    batch: int,
    rate: float,
    epochs: int,
    memory: float | None,
    iterations: str,
) -> None:
    recipe = recipes.load(f"cityscapes-deeplabv3-resnet101-{name}")
    config = recipe.config
    assert (config.reconstruction_weight, config.task_weight) == lambdas
    assert (config.crop, config.scale) == (crop, (0.5, 2.0))
    assert (config.batch_size, config.learning_rate, config.epochs) == (batch, rate, epochs)
    assert (config.schedule, config.momentum, config.weight_decay) == ("poly", 0.9, 5e-4)
    assert config.pretrained and config.synchronise_batch_norm and not config.nesterov
    assert recipe.published.memory_gb == memory
    assert any(f"{iterations} iterations" in note for note in recipe.notes)


def test_memory_and_top5_are_with_the_cells_that_have_them() -> None:
    assert recipes.load("cifar10-resnet110-end-to-end").published.memory_gb == 9.40
    assert recipes.load("cifar10-resnet110-k4-balanced-infopro-contrast").published.memory_gb == 3.52
    cell = recipes.load("imagenet-resnext101-32x8d-k2-balanced-infopro-softmax").published
    assert (cell.test_error, cell.top5_error, cell.memory_gb) == (20.35, 5.28, 11.55)


def test_the_cells_of_a_row_differ_in_their_objective_only() -> None:
    greedy = recipes.load("cifar10-resnet110-k8-greedy").config
    dgl = recipes.load("cifar10-resnet110-k8-dgl").config
    assert greedy != dgl
    assert vars(greedy) | {"objective": "dgl"} == vars(dgl)


def test_an_unknown_recipe_offers_near_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean cifar10-resnet32-k4-infopro-contrast"):
        recipes.load("cifar10-resnet32-k4-infopro-kontrast")


def test_patterns() -> None:
    assert recipes.list_recipes("no-such-*") == []
    assert recipes.list_recipes("cifar10-resnet32-k?-greedy") == [
        f"cifar10-resnet32-k{k}-greedy" for k in (2, 3, 4, 8)
    ]
