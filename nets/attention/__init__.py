"""Attention blocks as plug-ins: importing the package registers the built-in ones."""

from nets.attention import ca, cbam, eca, se
from nets.attention.registry import ATTENTION, attention_name, build_attention, register, same_attention

__all__ = [
    "ATTENTION",
    "attention_name",
    "build_attention",
    "ca",
    "cbam",
    "eca",
    "register",
    "same_attention",
    "se",
]
