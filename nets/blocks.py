"""Convolution with normalization and activation, the block of the whole network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.utils.fusion import fuse_conv_bn_eval


class ConvNormAct(nn.Module):
    """Convolution without bias, batch normalization, LeakyReLU 0.1: Darknet's `[convolutional]` section.

    Maps (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-5)
        self.act = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        if self.training and not self.norm.training:
            return self.act(self._conv_with_folded_norm(x))
        return self.act(self.norm(self.conv(x)))

    def _conv_with_folded_norm(self, x: Tensor) -> Tensor:
        """Fold frozen statistics into the weights: one pass less over the output, gradients as before."""
        norm, conv = self.norm, self.conv
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()  # (out_channels,)
        weight = conv.weight * gain[:, None, None, None]
        return conv2d(x, weight, norm.bias - norm.running_mean * gain, conv.stride, conv.padding)


def fold_norms(model: nn.Module) -> None:
    """Fold the batch normalization of each `ConvNormAct` into its convolution, in place.

    The model, in eval mode, then computes the same in less time; it can no longer be trained.
    """
    for module in model.modules():
        if isinstance(module, ConvNormAct) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
