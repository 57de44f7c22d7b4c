"""A line of `trained_on` says which data set it is about, also through earlier weights."""

import pytest

from c2l_models.releases.training_data import data_set_of, line_of_earlier

LINES = {
    "knee_kl train: 5778 images, 2889 patients": "knee_kl",
    "imagenet-1k train (1.2 M images): with its labels": "imagenet-1k",
    "initialized from resnet18.imagenet (licence: MIT): imagenet-1k train, with its labels: photographs": "imagenet-1k",
    "averaged, 0.3 of resnet18.imagenet (licence: MIT): imagenet-1k train": "imagenet-1k",
    "averaged, 1e-05 of my run (licence: GPL (3)): knee_kl train: 2 images": "knee_kl",
    "learned the features of resnet18.a (licence: see (b)): initialized from b (licence: MIT): mura train (x)": "mura",
    "mura": "mura",
}


@pytest.mark.parametrize(("line", "expected"), LINES.items())
def test_the_data_set_of_a_line(line: str, expected: str) -> None:
    assert data_set_of(line) == expected


def test_a_line_about_earlier_weights_is_written_as_it_is_read() -> None:
    own = "fracatlas train: 3 images, 3 patients"
    averaged = line_of_earlier("averaged", "resnet18.x", "CC (BY) 4.0", own, share=0.25)
    assert averaged == f"averaged, 0.25 of resnet18.x (licence: CC (BY) 4.0): {own}"
    for use in ("initialized from", "learned the features of"):
        line = line_of_earlier(use, "resnet18.y", "unknown", averaged)
        assert line == f"{use} resnet18.y (licence: unknown): {averaged}"
        assert data_set_of(line) == "fracatlas"
