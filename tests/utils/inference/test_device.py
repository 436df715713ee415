from __future__ import annotations

import pytest
import torch

from utils.cli.errors import UserError
from utils.inference.device import autocast_dtype, choose_device, has_fast_bfloat16


def pretend(monkeypatch, gpus, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("name", "gpus", "mps", "expected"),
    [
        ("auto", 0, False, "cpu"),
        ("auto", 0, True, "cpu"),
        ("auto", 2, False, "cuda:0"),
        ("cpu", 2, False, "cpu"),
        ("cuda", 2, False, "cuda:0"),
        ("cuda:1", 2, False, "cuda:1"),
        ("1", 2, False, "cuda:1"),
        ("mps", 0, True, "mps"),
    ],
)
def test_choose_device(monkeypatch, name, gpus, mps, expected):
    pretend(monkeypatch, gpus, mps)
    assert choose_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "gpus", "there"),
    [
        ("cuda", 0, "has cpu"),
        ("cuda:7", 1, "has cpu, cuda:0"),
        ("7", 1, "has cpu, cuda:0"),
        ("mps", 0, "has cpu"),
        ("tpu", 0, "has cpu"),
        ("0,1", 2, "torchrun"),
        ("cuda:", 1, "cuda:0"),
    ],
)
def test_absent_device_is_refused_naming_what_is_there(monkeypatch, name, gpus, there):
    pretend(monkeypatch, gpus)
    with pytest.raises(UserError, match=there) as caught:
        choose_device(name)
    assert f"--device {name}" in str(caught.value)


@pytest.mark.parametrize(
    ("amp", "device", "has_bfloat16", "expected"),
    [
        (None, "cpu", False, None),
        (None, "cpu", True, torch.bfloat16),
        (False, "cpu", True, None),
        (True, "cpu", False, torch.bfloat16),
        (None, "cuda", True, torch.bfloat16),
        (None, "cuda", False, torch.float16),
        (True, "cuda", False, torch.float16),
        (False, "cuda", True, None),
        (None, "mps", True, None),
    ],
)
@pytest.mark.parametrize("instruction", ["avx512_bf16", "amx_bf16", "bf16"])
def test_mixed_precision(monkeypatch, amp, device, has_bfloat16, expected, instruction):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bfloat16)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, instruction: has_bfloat16})
    assert autocast_dtype(amp, torch.device(device)) == expected


@pytest.mark.parametrize(
    ("cpu", "instructions", "is_fast"),
    [
        ("AMD EPYC 9654", ["avx512_bf16"], True),
        ("Intel Xeon", ["avx512_bf16"], False),  # as where a virtual machine hides AMX
        ("Intel Xeon", ["avx512_bf16", "amx_bf16"], True),
        ("Intel Xeon", ["avx512_bf16", "avx10_2"], True),
        (None, ["avx512_bf16"], True),  # an older torch names no CPU
    ],
)
def test_the_slow_bfloat16_of_some_intel_cpus_is_left_out(monkeypatch, cpu, instructions, is_fast):
    capabilities = dict.fromkeys(instructions, True) | ({"cpu_name": cpu} if cpu else {})
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert has_fast_bfloat16(torch.device("cpu")) == is_fast
    assert autocast_dtype(None, torch.device("cpu")) == (torch.bfloat16 if is_fast else None)
    assert autocast_dtype(True, torch.device("cpu")) == torch.bfloat16
