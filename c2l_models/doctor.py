"""`c2l doctor`: check a machine in seconds: versions, GPU, memory, disk, decoders, weights, and one tiny step.

A finding is a fact or a problem. A problem says what is wrong and what to do.
"""

import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .devices import find_device, parse_device
from .errors import C2LError

ENOUGH_DISK, ENOUGH_MEMORY = 2e9, 2e9
"""Free bytes below which the disk or the memory is a problem."""
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow", "pyarrow", "huggingface-hub", "safetensors")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
DICOM_LIBRARIES = {"pydicom": "DICOM", "libjpeg": "JPEG in DICOM", "openjpeg": "JPEG 2000 in DICOM"}
STEPS = 3
TOLERANCES = {"float32": 1e-2, "bfloat16": 5e-2}
"""Largest relative difference of a tiny step's losses from the CPU's in float32; TensorFloat-32 differs by 1e-3."""


@dataclass(frozen=True)
class Finding:
    """The result of one check. `problem` is empty if nothing is wrong."""

    subject: str
    fact: str
    problem: str = ""

    def __str__(self) -> str:
        line = f"{'PROBLEM' if self.problem else 'ok':8}{self.subject:11}{self.fact}"
        return f"{line}\n{'':19}{self.problem}" if self.problem else line


def examine(device: str | None = None) -> Iterator[Finding]:
    """Check this machine. `device`: the device of the tiny step; None: CUDA if torch finds it, otherwise the CPU.

    A cause that stops several checks, such as a device that this machine lacks, is reported once. Raises C2LError for a
    device of an unknown name.
    """
    if device is not None:
        _check_name(device)
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": _versions,
        "GPU": _gpu,
        "bfloat16": lambda: _precision(device),
        "memory": lambda: _memory(device),
        "disk": _disk,
        "decoders": _decoders,
        "weights": _weights,
        "step": lambda: _step(device),
    }
    causes = set[str]()
    for subject, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # a broken part must not hide the others
            name = "" if isinstance(error, C2LError) else f"{type(error).__name__}: "
            cause = f"{name}{str(error).partition(chr(10))[0]}"
            if cause not in causes:
                yield Finding(subject, "failed", cause)
            causes.add(cause)


def _check_name(device: str) -> None:
    with suppress(ImportError, OSError):  # a torch that cannot be imported is a finding
        parse_device(device)


def _versions() -> Iterator[Finding]:
    from packaging.requirements import Requirement  # a dependency of huggingface-hub

    try:
        required = {(parsed := Requirement(text)).name: parsed.specifier for text in requires("c2l-models") or ()}
    except PackageNotFoundError:  # used from a folder
        required = {}
    found, old = [], []
    for name in LIBRARIES:
        installed = version(name)
        found.append(f"{name} {installed}")
        if name in required and not required[name].contains(installed.partition("+")[0], prereleases=True):
            old.append(f"{name} {installed}: expected {required[name]}")
    todo = "; run pip install --upgrade 'c2l-models'" if old else ""
    yield Finding("versions", ", ".join(found), "; ".join(old) + todo)


def _gpu() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            yield Finding("GPU", f"{about.name}, {about.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}")
        return
    has_driver = bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia").exists()
    problem = ""
    if has_driver and torch.version.cuda is None:
        problem = "an NVIDIA driver is installed, but this torch has no CUDA; install torch as pytorch.org says"
    elif has_driver:
        problem = (
            f"an NVIDIA driver is installed, but torch for CUDA {torch.version.cuda} finds no GPU; run nvidia-smi, "
            "update the driver or install torch for an older CUDA, and check CUDA_VISIBLE_DEVICES"
        )
    yield Finding("GPU", "none; everything runs on the CPU", problem)


def _precision(device: str | None) -> Iterator[Finding]:
    import torch

    target = _device(device)
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        side = 512 if target.type == "cpu" else 4096
        a = torch.ones(side, side, dtype=dtype, device=target)
        times = []
        for _ in range(6):
            began = time.perf_counter()
            (a @ a).sum().item()  # waits for the device
            times.append(time.perf_counter() - began)
        seconds[dtype] = min(times)
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    advice = "" if ratio > 1 else "; train with --recipe.precision float32"
    yield Finding("bfloat16", f"{ratio:.1f} × the speed of float32 in matrix products on {target}{advice}")


def _memory(device: str | None) -> Iterator[Finding]:
    import torch

    target = _device(device)
    if target.type == "cuda":
        free, total = torch.cuda.mem_get_info(target)
        low = "another process uses this GPU's memory; see nvidia-smi" if free < ENOUGH_MEMORY else ""
        yield Finding("GPU memory", f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free", low)
    free_bytes = _free_memory()
    if free_bytes is not None:
        low = "close other programs" if free_bytes < ENOUGH_MEMORY else ""
        threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
        yield Finding("memory", f"{free_bytes / 1e9:.1f} GB free, {threads}", low)


def _free_memory() -> int | None:
    """Bytes that new programs can use, by Linux; None on other systems."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _disk() -> Iterator[Finding]:
    from huggingface_hub import constants

    folders = {"disk": Path.cwd(), "temporary": Path(tempfile.gettempdir()), "cache": Path(constants.HF_HUB_CACHE)}
    for subject, folder in folders.items():
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free, problem = shutil.disk_usage(existing).free, ""
        if not os.access(existing, os.W_OK):
            change = "; set HF_HOME to a folder that you can write" if subject == "cache" else ""
            problem = f"{existing} cannot be written; check its permissions{change}"
        elif free < ENOUGH_DISK:
            problem = "free some space: a store of 15,000 images of 128 pixels takes 0.25 GB, a run about 1 GB"
        yield Finding(subject, f"{free / 1e9:.0f} GB free in {folder}", problem)


def _decoders() -> Iterator[Finding]:
    from .radiographs.reading import decode_square
    from .verification import golden_image

    read, problems = [], []
    for name in FORMATS:
        file = io.BytesIO()
        try:
            golden_image(32).save(file, name)
            decode_square(file.getvalue(), 16)
            read.append(name)
        except (C2LError, OSError, KeyError) as error:
            problems.append(f"{name}: {error}")
    missing = [kind for library, kind in DICOM_LIBRARIES.items() if find_spec(library) is None]
    read += [kind for kind in DICOM_LIBRARIES.values() if kind not in missing]
    extra = f"; not {', '.join(missing)}: pip install 'c2l-models[dicom]'" if missing else ""
    reinstall = "; reinstall pillow: pip install --force-reinstall pillow" if problems else ""
    yield Finding("decoders", ", ".join(read) + extra, "; ".join(problems) + reinstall)


def _weights() -> Iterator[Finding]:
    from .releases.registry import default_weights
    from .verification import verify

    weights = default_weights("resnet18")
    result = verify(weights.name)
    problem = "" if result.ok else f"run c2l verify {weights.name}, and install the package again if its bytes differ"
    yield Finding("weights", f"{weights.name}: features as recorded to {result.max_difference:.0e}", problem)


def _step(device: str | None) -> Iterator[Finding]:
    target, reference = _device(device), _losses("cpu", "float32")
    for precision, tolerance in TOLERANCES.items():
        losses = _losses(target, precision)
        off = max(abs(here - there) / there for here, there in zip(losses, reference, strict=True))
        problem = ""
        if not off <= tolerance:  # also if NaN
            found, expected = (", ".join(f"{loss:.4f}" for loss in values) for values in (losses, reference))
            problem = f"expected losses {expected} as on the CPU, found {found}; do not train on this device"
        yield Finding("step", f"{precision} on {target}: losses differ from the CPU's float32 by {off:.0e}", problem)


def _losses(device: Any, precision: str) -> list[float]:
    """Losses of a small network's first steps, from the same weights and images on each device."""
    import torch
    from torch import nn
    from torch.nn import functional

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32)]
        network: Any = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
        images, labels = torch.randn(16, 1, 32, 32).to(device), torch.arange(16).to(device) % 4
    network.to(device, memory_format=torch.channels_last)
    optimizer, losses = torch.optim.SGD(network.parameters(), 0.05, 0.9), []
    for _ in range(STEPS):
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(images)
        loss = functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def _device(device: str | None) -> Any:
    import torch

    return find_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
