"""The device to compute on and its number type: --device, --amp, and what this machine has."""

from __future__ import annotations

import re

import torch

from utils.cli.errors import UserError
from utils.cli.version import bfloat16_speed


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


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 faster than in float32: by instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    instructions = [name for name, is_present in capabilities.items() if is_present]
    is_intel = "intel" in str(capabilities.get("cpu_name")).lower()
    return device.type == "cpu" and bfloat16_speed(instructions, is_intel) == "yes"


def autocast_dtype(amp: bool | None, device: torch.device) -> torch.dtype | None:
    """Return the number type of mixed precision, None for float32.

    Args:
        amp: the value of --amp; None means on a GPU, and on a CPU with fast bfloat16.
        device: where the network runs. A GPU without bfloat16 takes float16.
    """
    if amp is False or (amp is None and not (device.type == "cuda" or has_fast_bfloat16(device))):
        return None
    return torch.float16 if device.type == "cuda" and not has_fast_bfloat16(device) else torch.bfloat16


def precision_name(dtype: torch.dtype | None) -> str:
    """Return the name of the number type of mixed precision, or "float32"."""
    return str(dtype or torch.float32).removeprefix("torch.")
