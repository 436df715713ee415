"""Attention blocks as plug-ins: importing the package registers the built-in ones."""

# The order of these imports is the order of the names in messages.
# isort: off
from nets.attention import se, cbam, eca, ca
from nets.attention import cbam_halves, cam, scse, self_attention, split_attention, simam

# isort: on
from nets.attention.registry import (
    ATTENTION,
    attention_name,
    build_attention,
    register,
    same_attention,
    short_name,
)

__all__ = [
    "ATTENTION",
    "attention_name",
    "build_attention",
    "ca",
    "cam",
    "cbam",
    "cbam_halves",
    "eca",
    "register",
    "same_attention",
    "scse",
    "se",
    "self_attention",
    "short_name",
    "simam",
    "split_attention",
]
