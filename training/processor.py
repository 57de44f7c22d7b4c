"""Instructions of the CPU that decide a run's speed, and the kernels that compute it."""

import os
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Flags of processors that compute in bfloat16: AVX-512 BF16 and AMX of x86, BF16 of ARM."""


def instructions() -> str:
    """The instruction set by which torch and oneDNN choose kernels: vector width, bfloat16, and oneDNN's own limit."""
    flags = cpuinfo().split()
    bfloat16 = [flag for flag in BFLOAT16 if flag in flags]
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return " ".join([torch.backends.cpu.get_cpu_capability(), *bfloat16, *([f"oneDNN: {limit}"] if limit else [])])


def slow_precision(precision: str, device: torch.device) -> str:
    """A note if this precision is slower than float32 on this device; "" if it is not, or if that is unknown."""
    flags = cpuinfo().split()
    if precision != "bfloat16" or device.type != "cpu" or not flags or any(flag in flags for flag in BFLOAT16):
        return ""
    return (
        "this processor has no instructions for bfloat16 (AVX-512 BF16 or AMX), so it computes faster in float32: "
        "begin a run with --recipe.precision float32"
    )


def cpuinfo() -> str:
    """Linux's description of the processors; "" on another system."""
    return CPUINFO.read_text(encoding="utf-8") if CPUINFO.is_file() else ""
