"""Measuring a detector: anything that maps images to Detections, and a data set, to a typed result."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from nets.structures import Detections, Target
from utils.classes import match_class_names
from utils.console import progress as show_progress
from utils.console import warn
from utils.data.loaders import VocDataset
from utils.errors import UserError
from utils.files import atomic_write
from utils.inference.ahead import batched, map_ahead
from utils.inference.predictor import Predictor, Prepared, Timings
from utils.metrics.coco_ap import CocoResult, build_detections, build_ground_truth, coco_ap
from utils.metrics.voc_ap import VocResult, voc_ap
