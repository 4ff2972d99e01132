"""Sentence embeddings for the offline brain."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Embedder(Protocol):
    """Blocking and thread-safe: callers run it in a thread (30-40 ms a sentence)."""

    dimensions: int

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (len(texts), dimensions)."""
        ...
