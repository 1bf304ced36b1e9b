"""Distances of the vertices of reconstructed heads to their true places, kept beside a run's rows."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from implicit3dmm.data.npz import read_npz
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.references import Reference
from implicit3dmm.files import atomic_path
from implicit3dmm.heads.frame import UNIT_MM

AT_ONCE = 32
"""Heads that are reconstructed at once."""


class VertexErrors(NamedTuple):
    """Euclidean distances, mm of the average adult."""

    by_vertex: Float[np.ndarray, " v"]
    """Of each vertex, mean over the heads."""
    by_head: Float[np.ndarray, "r p"]
    """Of each head, mean over the vertices of each part."""


def vertex_errors(
    path: Path,
    reference: Reference,
    heads: RegisteredHeads,
    parts: Mapping[str, Bool[np.ndarray, " v"]],
    *,
    progress: Callable[[Iterable], Iterable] = iter,
) -> VertexErrors:
    """What a file keeps of a model's errors; the heads are reconstructed where there is no such file yet.

    Args:
        path: the .npz file, in a folder that serves one model and one set of heads.
        reference: the model.
        heads: that it gives back.
        parts: masks of vertices.
        progress: wraps the reconstructions, such as `tqdm`.

    Raises:
        InputError: the file is damaged or of other heads, or cannot be written.
    """
    if path.exists():
        try:
            known = VertexErrors(**read_npz(path, VertexErrors._fields))
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); remove it, and it is made again") from None
        if (known.by_head.shape, known.by_vertex.shape) != ((len(heads), len(parts)), heads.mean.shape[:1]):
            raise InputError(f"{path} is of other heads; remove it, and it is made again")
        return known
    total, rows = np.zeros(len(heads.mean)), []
    shares = np.stack([mask / mask.sum() for mask in parts.values()], axis=1)
    for start in progress(range(0, len(heads), AT_ONCE)):
        vertices = heads.vertices[start : start + AT_ONCE]
        away = UNIT_MM * np.linalg.norm(reference.reconstruct(vertices) - vertices, axis=-1).astype(np.float64)
        total += away.sum(0)
        rows.append(away @ shares)
    errors = VertexErrors(total / len(heads), np.concatenate(rows))
    with atomic_path(path) as temporary:
        np.savez(temporary, **errors._asdict())
    return errors
