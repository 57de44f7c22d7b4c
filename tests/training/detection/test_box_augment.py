"""Augmentation moves boxes with their image."""

import pytest
import torch

from c2l_models.training.detection.box_augment import augment


@pytest.mark.parametrize("seed", range(12))
def test_a_box_stays_on_its_bright_square(seed):
    image = torch.full((1, 128, 128), 20, dtype=torch.uint8)
    image[:, 40:90, 20:60] = 180
    torch.manual_seed(seed)
    changed, [box] = augment(image, torch.tensor([[20.0, 40, 60, 90]]))
    bright = changed[0] > 90
    down, across = bright.any(1).nonzero(), bright.any(0).nonzero()
    edges = torch.tensor([across[0].item(), down[0].item(), across[-1].item() + 1, down[-1].item() + 1])
    torch.testing.assert_close(box, edges.float(), atol=1.5, rtol=0)
    assert type(changed) is type(box) is torch.Tensor
    assert changed.dtype == torch.uint8


def test_every_kind_of_change_comes_and_a_film_without_boxes_too():
    image = torch.arange(128, dtype=torch.uint8).expand(1, 128, 128).contiguous()
    torch.manual_seed(0)
    flipped = [augment(image, torch.empty(0, 4)) for _ in range(20)]
    assert {tuple(boxes.shape) for _, boxes in flipped} == {(0, 4)}
    falls = [int(changed[0, 64, 100]) < int(changed[0, 64, 30]) for changed, _ in flipped]
    assert 0 < sum(falls) < 20
    assert len({int(changed[0, 64].max()) for changed, _ in flipped}) > 5


def test_a_box_shifted_out_of_the_film_is_dropped():
    counts = set()
    for seed in range(40):
        torch.manual_seed(seed)
        counts.add(len(augment(torch.zeros(1, 128, 128, dtype=torch.uint8), torch.tensor([[0.0, 50, 2, 80]]))[1]))
    assert counts == {0, 1}
