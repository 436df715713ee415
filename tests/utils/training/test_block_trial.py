"""The trial of a block of the user's own: what works as the run uses it, and what is refused, in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nets.attention import ATTENTION
from utils.cli.errors import UserError
from utils.cli.train_config import TrainConfig
from utils.training.block_trial import check_attention

GROUPED = Path(__file__).resolve().parents[2] / "grouped_block.py"
TIMM = ("GlobalContext", "SelectiveKernel", "EcaModule", "SplitAttn", "NonLocalAttn")
CODE = """
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm


class Own(nn.Module):
    def __init__(self, channels):
        super().__init__()
        {made}

    def forward(self, x):
        {forward}
"""
CONV = "self.conv = nn.Conv2d(channels, channels, 1)"
GATE = "return x * self.conv(x).sigmoid()"
TABLE = "self.table = nn.Parameter(torch.zeros(1, channels, 4, 4))"
NOT_OWN = (
    "training on 2 images of 64x64 pixels: it uses parameters that are not its own, .*; make them in __init__"
)
Try = Callable[..., None]


@pytest.fixture
def try_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Try:
    """Try a block at c4, in the 4 x 4 cells of 64 x 64 pixels; from what it makes and how it computes."""
    monkeypatch.chdir(tmp_path)

    def try_own(made: str, forward: str = GATE, **settings: object) -> None:
        Path("own.py").write_text(CODE.format(made=made, forward=forward))
        check("own.py:Own", **settings)

    return try_own


def check(phi: str, **settings: object) -> None:
    base = {"phi_at": ("c4",), "imgsz": (64, 64), "batch_size": 2, "device": "cpu", "amp": False}
    check_attention(TrainConfig(phi=phi, **{**base, **settings}))


WORKING = {
    "gate": (CONV, GATE),
    "weight norm": (f"self.conv = parametrizations.weight_norm({CONV[12:]})", GATE),
    "spectral norm": (f"self.conv = parametrizations.spectral_norm({CONV[12:]})", GATE),
    "complex numbers of real parameters": (
        "self.w = nn.Parameter(torch.ones(channels, 1, 1, 2))",
        "return torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(self.w), s=x.shape[-2:])",
    ),
    "norm of pooled features": (
        f"{CONV}; self.norm = nn.BatchNorm2d(channels)",
        "return x * self.norm(self.conv(x.mean((2, 3), keepdim=True))).sigmoid()",
    ),
    "five dimensions": (
        "self.conv = nn.Conv3d(1, 1, 3, padding=1); self.w = nn.Parameter(torch.ones(1, 1, channels, 1, 1))",
        "return x * self.conv(x[:, None] * self.w)[:, 0].sigmoid()",
    ),
    "a map that is kept for a plot": (CONV, "self.map = self.conv(x).sigmoid(); return x * self.map"),
    "dropout": (f"{CONV}; self.drop = nn.Dropout(0.5)", "return self.drop(self.conv(x))"),
}


@pytest.mark.parametrize("name", WORKING)
def test_what_works_passes_in_silence(try_own: Try, capsys: pytest.CaptureFixture[str], name: str) -> None:
    for amp in (False, True):
        state = torch.get_rng_state()
        try_own(*WORKING[name], amp=amp)
        assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr() == ("", "")


REFUSED = {
    "parameters of the first forward": (
        "self.conv = None",
        f"{CONV.replace('channels', 'x.shape[1]')} if self.conv is None else self.conv; {GATE}",
        NOT_OWN,
    ),
    "parameters of every forward": (CONV, f"{CONV.replace('channels', 'x.shape[1]')}; {GATE}", NOT_OWN),
    "a layer of every forward": (CONV, "return x * nn.Conv2d(256, 256, 1)(self.conv(x)).sigmoid()", NOT_OWN),
    "parameters in a dict": (
        f"{CONV}; self.tables = {{}}",
        "t = self.tables.setdefault(0, nn.Parameter(torch.zeros(x.shape[2:]))); return self.conv(x) + t",
        r"it uses .* one of shape \(4, 4\) .*nn.ParameterDict$",
    ),
    "a plain tensor": (
        f"{CONV}; self.scale = torch.ones(1, requires_grad=True)",
        "return self.conv(x) * self.scale",
        NOT_OWN,
    ),
    "buffers of the first forward": (
        CONV,
        "self.register_buffer('mean', x.detach().mean()); return self.conv(x)",
        "after its first forward: it has made mean, too late to be loaded; use __init__",
    ),
    "a lazy layer": (
        "self.conv = nn.LazyConv2d(channels, 1)",
        GATE,
        "building it: conv.weight of a LazyConv2d has no shape .*; use nn.Conv2d with its number of inputs$",
    ),
    "the old weight norm": (
        f"self.conv = weight_norm({CONV[12:]})",
        GATE,
        "building it: conv.weight is computed before forward, .*utils.parametrizations.weight_norm",
    ),
    "complex parameters": (
        "self.w = nn.Parameter(torch.ones(channels, 1, 1, dtype=torch.complex64))",
        "return torch.fft.irfft2(torch.fft.rfft2(x) * self.w, s=x.shape[-2:])",
        "building it: w is complex, .*moving average.*torch.view_as_real",
    ),
    "parameters in 16 bits": (
        "self.w = nn.Parameter(torch.ones(channels, 1, 1).half())",
        "return (x * self.w).float()",
        "building it: w is float16, .*use float32",
    ),
    "no inference": (
        f"{CONV}; self.running = None",
        "return self.conv(x if self.training else x - self.running)",
        r"evaluating 2 images of 64x64 pixels: TypeError in own.py line 13: ",
    ),
    "two images": (
        CONV,
        "return self.conv(x / x.std(0, keepdim=True))",
        "evaluating 1 image of 64x64 pixels: its output is not finite",
    ),
    "one image": (
        CONV,
        "return self.conv(x).view(1, *x.shape[1:])",
        "training on 2 images of 64x64 pixels: RuntimeError in own.py line 13: ",
    ),
    "a graph that is kept": (
        f"{CONV}; self.last = 0",
        "self.last = self.last + self.conv(x); return self.last",
        "training on 2 images of 64x64 pixels again: RuntimeError.*; detach\\(\\) what it keeps",
    ),
    "a hook that knows the first block": (
        f"{CONV}; self.conv.register_forward_hook(lambda m, i, o: setattr(self, 'gate', o))",
        "self.conv(x); return x * self.gate.sigmoid()",
        "evaluating a copy of it: AttributeError in own.py.*; a hook or lambda must not refer to self",
    ),
    "a lambda that knows the first block": (
        f"{CONV}; self.gate = lambda x: self.conv(x).sigmoid()",
        "return x * self.gate(x)",
        "evaluating a copy of it: it computes something else; a hook or lambda must not refer to self",
    ),
    "a list of layers": (
        "self.scale = nn.Parameter(torch.zeros(1)); self.list = [nn.Conv2d(channels, channels, 1)]",
        "return x + self.scale * self.list[0](x)",
        NOT_OWN,
    ),
    "a list of tensors": (
        f"{CONV}; self.list = [torch.randn(channels, 1, 1)]",
        "return self.conv(x) * self.list[0]",
        "evaluating a new one with its weights: it computes something else; use register_buffer",
    ),
    "channels last alone": (
        CONV,
        "return self.conv(x.permute(0, 2, 3, 1).view(-1).view(*x[:, 0].shape, -1).permute(0, 3, 1, 2))",
        "evaluating contiguous features, as export does: RuntimeError in own.py.*; use reshape for view$",
    ),
    "an inplace change": (CONV, "return x.mul_(self.conv(x))", "it changes its input in place; use x \\* y"),
    "no numbers": (CONV, "return self.conv(x) / 0", "its output is not finite"),
    "no gradient": (CONV, "return self.conv(x).detach()", "its output has no gradient; leave out detach"),
    "a gradient that is not finite": (
        "self.w = nn.Parameter(torch.zeros(1))",
        "return x + self.w.abs().sqrt()",
        "the gradient of w is not finite",
    ),
    "no reason": (CONV, "assert False", "AssertionError in own.py line 13: no reason given$"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_would_fail_later_is_refused(try_own: Try, name: str) -> None:
    made, forward, words = REFUSED[name]
    with pytest.raises(UserError, match=f"^--phi own.py:Own at c4, .*{words}") as caught:
        try_own(made, forward)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400


def test_two_types_are_refused_in_mixed_precision_alone(try_own: Try) -> None:
    block = CONV, "return torch.zeros_like(x).scatter_(1, torch.zeros_like(x).long(), self.conv(x))"
    try_own(*block)
    with pytest.raises(UserError, match=r"in bfloat16: RuntimeError in own.py.*; .*or use --no-amp$"):
        try_own(*block, amp=True)


def test_a_table_of_one_size_is_said(try_own: Try, capsys: pytest.CaptureFixture[str]) -> None:
    try_own(TABLE, "return x + self.table")
    warning = capsys.readouterr().err
    assert warning.startswith("warning: --phi own.py:Own at c4: fits 64x64 pixels but not 96x96 (RuntimeErr")
    assert warning.endswith("evaluate, predict and export at this --imgsz too, or resize its table to "
                            "x.shape[2:] in forward\n")  # fmt: skip


@pytest.mark.parametrize(
    ("at", "side", "heads", "places"),
    [
        ("c5", 4, 2, r"c4 \(4x4\), up \(4x4\), not of c5 \(2x2\): use F.interpolate.*, or --phi-at c4 up"),
        ("c5", 8, 3, r"c3 \(8x8\), up2 \(8x8\), not of c5 \(2x2\): use F.interpolate.*, or --phi-at c3 up2"),
        ("c5", 8, 2, None),
        ("c3", 4, None, r"c4 \(4x4\), up \(4x4\), not of c3 \(8x8\): use F.interpolate.*, or --phi-at c4 up"),
    ],
)
def test_a_table_of_another_place_names_those_it_fits(
    try_own: Try, at: str, side: int, heads: int | None, places: str | None
) -> None:
    advice = f"; it fits the features of {places}" if places else ""
    with pytest.raises(UserError, match=rf"at {at}, training .*: The size of .* dimension 3{advice}$"):
        try_own(TABLE.replace("4, 4", f"{side}, {side}"), "return x + self.table", phi_at=(at,), heads=heads)


def test_chance_in_evaluation_is_said(try_own: Try, capsys: pytest.CaptureFixture[str]) -> None:
    try_own(CONV, "return self.conv(nn.functional.dropout(x))")
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.endswith("another output for the same features in evaluation mode: results vary")


def test_a_grouped_block_works_and_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    for amp in (False, True):
        check(f"{GROUPED}:SGE", phi_at=("c4", "c5", "up"), amp=amp)
        line = f"--phi {GROUPED}:SGE at c4, c5, up: gets contiguous features, as it fails on channels_last\n"
        assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("name", TIMM)
def test_blocks_of_timm_plug_in_as_they_are(capsys: pytest.CaptureFixture[str], name: str) -> None:
    pytest.importorskip("timm")
    check(f"timm.layers:{name}", phi_at=("c4", "c5", "up"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", sorted(ATTENTION))
def test_built_in_blocks_would_pass_the_trial_of_ones_own(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    listed = ATTENTION[name]
    spec = listed if isinstance(listed, str) else f"{listed.__module__}:{listed.__qualname__}"
    for amp in (False, True):
        check(spec, amp=amp)
    assert capsys.readouterr() == ("", "")
