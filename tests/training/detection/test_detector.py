"""Shapes of maps and losses, trained parameters, and learning a few real images."""

import csv

import numpy as np
import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn_v2

from c2l_models.errors import C2LError
from c2l_models.training.detection.detector import build_detector
from c2l_models.training.detection.images import load_images
from c2l_models.training.detection.train import train_step
from c2l_models.training.initialization import load_initialization


def test_maps_losses_and_boxes():
    init = load_initialization("random", size=128)
    detector = build_detector(init, 128)
    maps = detector.backbone(torch.zeros(2, 1, 128, 128))
    assert [tuple(m.shape) for m in maps.values()] == [(2, 256, side, side) for side in (16, 8, 4, 2, 1)]
    assert detector.head.classification_head.cls_logits.out_channels == 9  # nine anchors, one class, no background
    images = [torch.rand(1, 128, 128) for _ in range(2)]
    nothing = {"boxes": torch.empty(0, 4), "labels": torch.empty(0, dtype=torch.int64)}
    box = {"boxes": torch.tensor([[10.0, 20, 70, 90]]), "labels": torch.tensor([0])}
    losses = detector(images, [box, nothing])
    assert losses["classification"] > 0
    assert losses["bbox_regression"] > 0
    assert detector(images, [nothing, nothing])["bbox_regression"] == 0
    detector.eval().score_thresh = 0.0
    [found, _] = detector(images)
    assert 50 < len(found["boxes"]) <= 300
    assert set(found["labels"].tolist()) == {0}
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"] <= 128).all()


def test_the_body_is_the_starts_and_all_of_it_is_trained():
    init = load_initialization("resnet18.c2l_open26k")
    detector = build_detector(init, 128)
    weights = init.network.state_dict()
    body = detector.backbone.body.state_dict()
    assert len(body) == len(weights) > 100
    assert all(torch.equal(body[key], weights[key]) for key in body)
    assert all(parameter.requires_grad for parameter in detector.parameters())
    assert (detector.transform.image_mean, detector.transform.image_std) == ([init.mean], [init.std])
    before = detector.backbone.body.bn1.running_mean.clone()
    nothing = {"boxes": torch.empty(0, 4), "labels": torch.empty(0, dtype=torch.int64)}
    detector.train()([torch.rand(1, 128, 128)] * 2, [nothing] * 2)
    assert not torch.equal(before, detector.backbone.body.bn1.running_mean)


def test_the_second_head_is_torchvisions():
    """Same layers and loss as torchvision's retinanet_resnet50_fpn_v2, for one class."""
    theirs = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=1).head
    ours = build_detector(load_initialization("random"), 128, head="group_norm").head
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }
    assert ours.regression_head._loss_type == theirs.regression_head._loss_type == "giou"
    assert str(ours) == str(theirs)


def test_boxes_are_not_rounded_by_autocast():
    detector = build_detector(load_initialization("random"), 128).eval()
    detector.score_thresh = 0.0
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        boxes = detector([torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(0))])[0]["boxes"]
    assert boxes.dtype == torch.float32
    assert not torch.equal(boxes, boxes.bfloat16().float())


def test_new_layers_depend_on_the_seed_alone():
    one, same, other = (
        build_detector(load_initialization(name), 128, seed)
        for name, seed in (("random", 1), ("resnet18.c2l_open26k", 1), ("random", 2))
    )
    key = "head.classification_head.conv.0.0.weight"
    assert torch.equal(one.state_dict()[key], same.state_dict()[key])
    assert not torch.equal(one.state_dict()[key], other.state_dict()[key])


def test_another_architecture_is_refused():
    with pytest.raises(C2LError, match="expected an architecture among resnet18, found densenet121"):
        build_detector(load_initialization("random:densenet121"), 128)


def test_real_films_can_be_learnt(real_data, tmp_path):
    """On the same four images with boxes, the loss falls by more than a tenth in fifteen steps."""
    source, root = real_data / "rsna-pneumonia", tmp_path / "few"
    (root / "stage_2_train_images").mkdir(parents=True)
    with (source / "stage_2_train_labels.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    names = list(dict.fromkeys(row[0] for row in rows if row[5] == "1"))[:12]
    with (root / "stage_2_train_labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in rows if row[0] in names)])
    for name in names:
        file = f"stage_2_train_images/{name}.dcm"
        (root / file).symlink_to(source / file)
    images = load_images(root, tmp_path / "store", 128, workers=1, progress=False)
    detector = build_detector(load_initialization("resnet18.c2l_open26k"), 128)
    rate = 0.005  # a batch of four has no warm-up here, and the loss explodes at four times this rate
    optimizer = torch.optim.SGD(detector.parameters(), rate, 0.9)
    batch = images.of("training")[:4]
    losses = []
    for _ in range(15):
        step = train_step(detector, optimizer, images, np.asarray(batch), rate, 0, torch.device("cpu"))
        losses.append(float(step["loss"].detach()))
    assert losses[-1] < losses[4] < losses[0]
    assert losses[-1] < 0.9 * losses[0]
