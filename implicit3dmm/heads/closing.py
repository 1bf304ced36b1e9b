"""Closes an open head skin into a watertight one with the same faces for every shape.

The skin is open at the lips, the two lid margins and the neck. A film of a few rows joins the lips, recessed
in proportion to their opening; a film projected on the eyeball joins each pair of lids; two shrunken rings
and a centre close the neck.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

MOUTH_DEPTH = 0.6
"""Depth of the mouth film at its middle row, as a share of half the opening's height."""
EYE_RADIUS = 0.99
"""Radius of the eye films as a share of the eyeball's, so that the lids stay in front."""
NECK_RINGS = (0.66, 0.33)
"""Radius of the two rings of the neck cap, as a share of the neck loop's."""


@dataclass(frozen=True)
class Film:
    """Rows of vertices between two chains of skin vertices (upper and lower lip or lid)."""

    upper: Int[np.ndarray, " c"]
    lower: Int[np.ndarray, " c"]
    inner: Int[np.ndarray, "c rows"]

    def rows(self, vertices: Float[np.ndarray, "b v 3"]) -> Float[np.ndarray, "b c rows 3"]:
        """Straight rows from the upper to the lower chain."""
        share = np.arange(1, self.inner.shape[1] + 1, dtype=vertices.dtype)[:, None] / (self.inner.shape[1] + 1)
        return vertices[:, self.upper, None] * (1 - share) + vertices[:, self.lower, None] * share


@dataclass(frozen=True)
class Closing:
    """What closes one skin topology: a mouth film, two eye films (left, right) and the neck cap."""

    skin_count: int
    vertex_count: int
    mouth: Film
    eyes: tuple[Film, Film]
    neck: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"], int]
    """The neck loop, the two rings and the centre."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Closing":
        """Reads the closing from the arrays of a head asset (keys film0..2, neck_*, n_skin, mirror)."""
        films = [Film(*(arrays[f"film{i}_{part}"] for part in ("upper", "lower", "idx"))) for i in range(3)]
        neck = (arrays["neck_loop"], arrays["neck_r1"], arrays["neck_r2"], int(arrays["neck_c"]))
        return cls(int(arrays["n_skin"]), len(arrays["mirror"]), films[0], (films[1], films[2]), neck)

    def arrays(self) -> dict[str, np.ndarray]:
        """What `from_arrays` reads, without the mirror map."""
        arrays = dict(zip(("neck_loop", "neck_r1", "neck_r2"), self.neck, strict=False))
        arrays |= {"n_skin": np.int32(self.skin_count), "neck_c": np.int32(self.neck[-1])}
        for i, film in enumerate((self.mouth, *self.eyes)):
            arrays |= {f"film{i}_upper": film.upper, f"film{i}_lower": film.lower, f"film{i}_idx": film.inner}
        return arrays

    def apply(
        self,
        skin: Float[np.ndarray, "b s 3"],
        eyeballs: tuple[Float[np.ndarray, "b e 3"], Float[np.ndarray, "b e 3"]],
    ) -> Float[np.ndarray, "b v 3"]:
        """Adds the vertices of the films and of the neck cap.

        Args:
            skin: skin vertices, any unit.
            eyeballs: vertices of the left and the right eyeball, of which centre and radius are taken.
        """
        closed = np.empty((len(skin), self.vertex_count, 3), skin.dtype)
        closed[:, : self.skin_count] = skin
        closed[:, self.mouth.inner] = self._mouth(closed, skin.mean(1))
        for film, eyeball in zip(self.eyes, eyeballs, strict=True):
            closed[:, film.inner] = _on_eyeball(film.rows(closed), eyeball)
        loop, *rings, centre = self.neck
        middle = closed[:, loop].mean(1, keepdims=True)
        for ring, radius in zip(rings, NECK_RINGS, strict=True):
            closed[:, ring] = middle + radius * (closed[:, loop] - middle)
        closed[:, centre] = middle[:, 0]
        return closed

    def _mouth(self, vertices: np.ndarray, head_centre: np.ndarray) -> np.ndarray:
        upper, lower = vertices[:, self.mouth.upper], vertices[:, self.mouth.lower]
        height = np.linalg.norm(upper - lower, axis=-1, keepdims=True)
        inward = head_centre[:, None] - (upper + lower) / 2
        inward /= np.linalg.norm(inward, axis=-1, keepdims=True)
        count = self.mouth.inner.shape[1]
        share = np.arange(1, count + 1, dtype=vertices.dtype)[:, None] / (count + 1)
        recess = 2 * MOUTH_DEPTH * share * (1 - share)
        return self.mouth.rows(vertices) + (inward * height)[:, :, None] * recess


def _on_eyeball(rows: np.ndarray, eyeball: np.ndarray) -> np.ndarray:
    centre = eyeball.mean(1, keepdims=True)
    radius = np.linalg.norm(eyeball - centre, axis=-1).mean(1)[:, None, None, None]
    outward = rows - centre[:, :, None]
    return centre[:, :, None] + EYE_RADIUS * radius * outward / np.linalg.norm(outward, axis=-1, keepdims=True)
