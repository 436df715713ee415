"""Evaluation mode of a network that several threads and predictors use at once."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary

from torch import nn

_MODE_LOCK = threading.Lock()  # of the module, so that a predictor can be pickled
# How many use a network now, and its modules that were in training mode before.
_IN_EVALUATION: WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]] = WeakKeyDictionary()


class EvaluationMode:
    """A context in which a network is in evaluation mode, for several threads and predictors at once.

    When the last of them leaves, each module is in the mode again that it was in.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __enter__(self) -> None:
        with _MODE_LOCK:
            users, in_training = _IN_EVALUATION.get(self._model, (0, []))
            if not users:
                in_training = [module for module in self._model.modules() if module.training]
                for module in in_training:
                    module.training = False
            _IN_EVALUATION[self._model] = users + 1, in_training

    def __exit__(self, *_: object) -> None:
        with _MODE_LOCK:
            users, in_training = _IN_EVALUATION.pop(self._model)
            if users > 1:
                _IN_EVALUATION[self._model] = users - 1, in_training
            else:
                for module in in_training:
                    module.training = True
