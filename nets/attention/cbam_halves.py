"""The two halves of CBAM, each alone: `channel` and `spatial`.

Paper: Woo et al., CBAM, https://arxiv.org/abs/1807.06521 (sections 3.1 and 3.2)
Deviation: that of cbam.py, where the classes are. They are registered here so that they are named after the
numbered blocks.
"""

from __future__ import annotations

from nets.attention.cbam import ChannelAttention, SpatialAttention
from nets.attention.registry import register

register("channel")(ChannelAttention)
register("spatial")(SpatialAttention)
