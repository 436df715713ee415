"""Versions of the project, Python, packages and devices: one paste for a bug report.

torch is not imported, so that `--version` answers at once: its CUDA version is read from its files, GPUs from
nvidia-smi, the processor's bfloat16 instructions from the operating system.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

VERSION = "0.1.0"
_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = (
    *("torchvision", "albumentations", "opencv-python-headless", "opencv-python", "numpy", "Pillow"),
    *("pycocotools", "matplotlib", "onnx", "onnxruntime", "openvino", "ncnn"),
    *("gradio", "gradio_image_annotation"),
)
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16"}  # instructions of x86, and of Arm


def version_lines() -> list[str]:
    """Return the lines of --version."""
    cuda = _cuda_of_torch()
    torch = f"torch {_version_of('torch') or 'missing'}" + (f" (CUDA {cuda})" if cuda else " (no CUDA)")
    packages = [f"{name} {found}" for name in _PACKAGES if (found := _version_of(name))]
    return [
        f"yolov4-tiny {VERSION}, commit {_commit()}",
        f"Python {platform.python_version()}, {platform.platform()}",
        torch,
        f"CPU: {os.cpu_count()} cores, {_processor()}, bfloat16 {_bfloat16()}",
        *(_gpus() or ["GPU: none found"]),
        f"packages: {', '.join(packages)}",
    ]


def bfloat16_speed(instructions: Iterable[str], is_intel: bool) -> str:
    """Return "yes" where a processor computes in bfloat16 faster than in float32, else "slow" or "no".

    Intel's AVX512_BF16 alone, without AMX as in some virtual machines, takes 1.2 times as long as float32.
    """
    found = _BFLOAT16.intersection(instructions)
    if is_intel and found == {"avx512_bf16"}:
        return "slow"
    return "yes" if found else "no"


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    command = ("git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=10")
    return _output(*command) if (_ROOT / ".git").exists() else "unknown"


def _cuda_of_torch() -> str | None:
    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    text = file.read_text(encoding="utf-8") if file and file.is_file() else ""
    found = re.search(r"""^cuda[^=]*=\s*['"]([\d.]+)['"]""", text, re.MULTILINE)
    return found.group(1) if found else None


def _cpu_info() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _cpu_info(), re.MULTILINE)
    return found.group(1) if found else platform.processor() or platform.machine()


def _bfloat16() -> str:
    info = _cpu_info()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.MULTILINE)
    return bfloat16_speed(found.group(1).split() if found else [], "GenuineIntel" in info)


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    listed = _output("nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader")
    lines = []
    for line in listed.splitlines():
        name, driver, capability = (part.strip() for part in line.split(","))
        major = capability.partition(".")[0]
        bfloat16 = "yes" if major.isdigit() and int(major) >= 8 else "no"  # Ampere and later
        lines.append(f"GPU: {name}, driver {driver}, bfloat16 {bfloat16}")
    return lines


def _output(*command: str) -> str:
    """Return what another program prints, or nothing where it fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()
