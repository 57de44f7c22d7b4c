"""Lightly's MoCo with Lightly's own data set, loader, transforms, loss with memory bank, and momentum update.

This file is not imported: `c2l benchmark peer` runs it with an interpreter that has lightly, torch and torchvision, and
reads the line of JSON that it prints. Settings are Lightly's defaults, except where radiographs differ (one channel,
a scalar mean and std) and where both sides must be equal (architecture, sizes, precision, queue).
"""

import argparse
import copy
import json
import time
from collections.abc import Iterator

import lightly
import torch
import torchvision
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.utils import batch_shuffle, batch_unshuffle, deactivate_requires_grad, update_momentum
from lightly.transforms.moco_transform import MoCoV1Transform
from torch import Tensor, nn
from torch.utils.data import DataLoader

MEAN, STD = 0.5, 0.25


def main() -> None:
    """Train, time the steps after the warm-up, and print seconds per step, threads and versions as JSON."""
    options = parse()
    device = torch.device(options.device)
    loader = make_loader(options)
    student = make_encoder(options).to(device)
    teacher = copy.deepcopy(student)
    deactivate_requires_grad(teacher)
    criterion = NTXentLoss(temperature=0.07, memory_bank_size=(options.queue_length, 128)).to(device)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.06, momentum=0.9, weight_decay=1e-4)
    started = 0.0
    for number, (query, key) in enumerate(endless(loader, device)):
        if number == options.warm_up:
            synchronize(device)
            started = time.perf_counter()
        if number == options.warm_up + options.steps:
            synchronize(device)
            break
        update_momentum(student, teacher, m=0.999)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            features = student(query)
            with torch.no_grad():
                shuffled, order = batch_shuffle(key)
                targets = batch_unshuffle(teacher(shuffled), order)
        loss = criterion(features.float(), targets.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = (time.perf_counter() - started) / options.steps
    versions = {library.__name__: library.__version__ for library in (lightly, torch, torchvision)}
    print(json.dumps({"seconds": seconds, "threads": torch.get_num_threads(), "versions": versions}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True, help="folder of image files")
    parser.add_argument("--architecture", required=True, help="torchvision's name of the network")
    parser.add_argument("--first-conv", required=True, help="the network's first convolution")
    parser.add_argument("--classifier", required=True, help="the network's final linear layer")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--device", required=True)
    for name in ("size", "batch-size", "queue-length", "workers", "steps", "warm-up"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument(
        "--channels-last",
        action="store_true",
        help="memory format; Lightly's examples do not use it",
    )
    return parser.parse_args()


def make_loader(options: argparse.Namespace) -> DataLoader:
    """A loader of Lightly's data set, which decodes each file in each epoch: two views of one grey channel."""
    views = MoCoV1Transform(input_size=options.size, normalize={"mean": [MEAN], "std": [STD]})
    transform = torchvision.transforms.Compose([torchvision.transforms.Grayscale(), views])
    return DataLoader(
        LightlyDataset(options.images, transform=transform),
        batch_size=options.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        pin_memory=options.device == "cuda",
    )


def make_encoder(options: argparse.Namespace) -> nn.Module:
    """torchvision's network with one input channel, and MoCo's projection head."""
    network = torchvision.models.get_model(options.architecture, weights=None)
    width = network.get_submodule(options.classifier).in_features
    conv = network.get_submodule(options.first_conv)
    first = nn.Conv2d(1, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=False)
    for path, module in ((options.first_conv, first), (options.classifier, nn.Identity())):
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, module)
    encoder = nn.Sequential(network, MoCoProjectionHead(width, width, 128))
    return encoder.to(memory_format=torch.channels_last) if options.channels_last else encoder


def endless(loader: DataLoader, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield both views of each batch on the device, over endless epochs."""
    while True:
        for (query, key), _, _ in loader:
            yield query.to(device, non_blocking=True), key.to(device, non_blocking=True)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished; returns at once on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
