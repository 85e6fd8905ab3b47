import itertools

import pytest

from infopro.errors import BadSplit
from infopro.splitting.blocks import Blocks
from infopro.splitting.depth import equal_depth


def cifar(num_blocks):
    names = tuple(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(num_blocks))
    return Blocks("relu", names, True)


def named(text):
    """ "1,2 2,1" -> layer1.2, layer2.1 (the papers' [stage, block]); "0,0" is the stem."""
    return ["relu" if cut == "0,0" else f"layer{cut.replace(',', '.')}" for cut in text.split()]


# InfoPro's published equal-depth boundaries (METHODS: ResNet-32 and ResNet-110).
PUBLISHED = {
    (5, 2): "2,1",
    (5, 3): "1,4 2,4",
    (5, 4): "1,2 2,1 3,0",
    (5, 8): "1,0 1,2 1,4 2,1 2,3 3,0 3,2",
    (5, 16): "0,0 1,0 1,1 1,2 1,3 1,4 2,0 2,1 2,2 2,3 2,4 3,0 3,1 3,2 3,3",
    (18, 2): "2,8",
    (18, 3): "1,17 2,17",
    (18, 4): "1,11 2,7 3,3",
    (18, 8): "1,4 1,11 2,0 2,7 2,14 3,3 3,10",
    (18, 16): "1,1 1,4 1,7 1,10 1,13 1,16 2,1 2,4 2,7 2,11 2,15 3,1 3,5 3,9 3,13",
}


@pytest.mark.parametrize(("num_blocks", "num_modules"), PUBLISHED)
def test_one_rule_gives_every_published_split(num_blocks, num_modules):
    expected = named(PUBLISHED[num_blocks, num_modules])
    assert equal_depth(cifar(num_blocks), num_modules=num_modules) == expected


@pytest.mark.parametrize("num_modules", range(1, 11))
def test_modules_differ_by_at_most_one_block(num_modules):
    units = cifar(3).units
    cuts = equal_depth(cifar(3), num_modules=num_modules)
    ends = [0, *(units.index(cut) + 1 for cut in cuts), len(units)]
    sizes = [b - a for a, b in itertools.pairwise(ends)]
    assert len(sizes) == num_modules and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("num_modules", [0, -1, 11])
def test_impossible_numbers_are_refused(num_modules):
    with pytest.raises(BadSplit, match="allowed: 1 to 10"):
        equal_depth(cifar(3), num_modules=num_modules)
