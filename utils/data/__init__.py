"""Data sets: reading, checking, augmenting and loading of annotated images."""

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # its update check needs the network
