"""The device to compute on: --device, and what this machine has."""

from __future__ import annotations

import re

import torch

from utils.cli.errors import UserError


def choose_device(name: str = "auto") -> torch.device:
    """Return the device that `--device` names.

    Args:
        name: "auto" (CUDA if present, else the CPU; MPS only when named), "cpu", "cuda", "cuda:1" or just
            "1", "mps".

    Raises:
        UserError: this machine has no such device; lists those it has.
    """
    present = available_devices()
    wanted = f"cuda:{name}" if re.fullmatch(r"\d+", name) else name
    if wanted == "cuda" or (wanted == "auto" and "cuda:0" in present):
        wanted = "cuda:0"
    elif wanted == "auto":
        wanted = "cpu"
    if wanted not in present:
        advice = "; torchrun uses several GPUs" if "," in name else ""
        raise UserError(f"--device {name}: not on this machine, which has {', '.join(present)}{advice}")
    return torch.device(wanted)


def available_devices() -> list[str]:
    """List the devices of this machine as `--device` takes them, the CPU first."""
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices
