"""Features are in the rows' order, and the frozen network is unchanged."""

import numpy as np
import torch
from torch import nn

from c2l_models.training.features import calibration_rows, clean_batches, extract_features


def grey_images(count=10, size=8):
    """Image n is uniformly grey at 10 n."""
    return (torch.arange(count, dtype=torch.uint8) * 10).view(-1, 1, 1, 1).expand(count, 1, size, size)


class MeanOfImage(nn.Module):
    def forward(self, x):
        assert x.shape[1:] == (1, 4, 4)
        return x.mean(dim=(2, 3)).double() * torch.ones(1, 2, device=x.device)


def test_rows_order_size_and_normalisation():
    rows = np.array([7, 0, 3, 3, 9])
    features = extract_features(MeanOfImage(), grey_images(), rows, size=4, mean=0.5, std=0.25, batch_size=2)
    assert features.dtype == np.float32
    expected = (rows * 10 / 255 - 0.5) / 0.25
    np.testing.assert_allclose(features, np.stack([expected, expected], axis=1), atol=1e-5)


def test_modes_and_statistics_are_left_alone():
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten())
    network.train()
    network[0].eval()  # a module in evaluation mode stays in it
    images = grey_images()
    all_at_once = extract_features(network, images, np.arange(10), 8, 0.5, 0.25, batch_size=10)
    one_by_one = extract_features(network, images, np.arange(10), 8, 0.5, 0.25, batch_size=1)
    np.testing.assert_array_equal(all_at_once, one_by_one)
    assert [module.training for module in network] == [False, True, True]
    assert network[0].num_batches_tracked == 0


def test_calibration_batches_are_random_draws_from_all_rows() -> None:
    """A store is ordered by data set: here black images, then white ones. Every batch must have both."""
    images = np.repeat(np.array([0, 255], np.uint8), 300)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    store = torch.from_numpy(images)[:, None]
    draws = [list(clean_batches(store, calibration_rows(np.arange(600)), 8, 0.0, 1.0)) for _ in range(2)]
    assert sorted(len(batch) for batch in draws[0]) == [200, 200, 200]
    assert all(0.35 < batch.mean() < 0.65 for batch in draws[0])
    assert torch.cat(draws[0]).mean() == 0.5  # each image once
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))
