"""Places the 39 anchors on the average adult by anatomical rules: landmarks, means of them, and directions.

The number of anchors and their pairing follow NPHM's layout, so that models of that family can be compared; where
each one lies is decided here, from the 68 landmarks, the ear and directions from the canonical origin.
"""

import numpy as np
from jaxtyping import Float, Int

# iBUG landmarks of the subject's left (or of the midline) whose mean is the anchor's place.
LANDMARKS = {
    "mouth_corner": (54,),
    "cheek_back": (14, 46),
    "jaw_side": (10,),
    "cheek": (45, 54, 13),
    "brow": (24,),
    "eye_inner": (42,),
    "eye_outer": (45,),
    "nose_ala": (35,),
    "jaw_angle": (12,),
    "nose_tip": (30,),
    "lower_lip": (57,),
    "upper_lip": (51,),
    "nasion": (27,),
    "chin": (8,),
}
# Azimuth from the face towards the subject's left, and elevation, in degrees.
DIRECTIONS = {
    "temple": (40, 22),
    "forehead_side": (25, 45),
    "crown": (60, 70),
    "occiput": (145, 40),
    "nape": (135, -25),
    "neck_back": (125, -58),
    "neck_front": (0, -62),
    "glabella": (0, 32),
}
EAR = "ear"


def place_anchors(
    pairs: list[str],
    midline: list[str],
    *,
    cage: Float[np.ndarray, "c 3"],
    surface: Float[np.ndarray, "v 3"],
    landmarks: Int[np.ndarray, " 68"],
    ear: Int[np.ndarray, " e"],
    mirror: Int[np.ndarray, " c"],
) -> Int[np.ndarray, " 39"]:
    """Skin vertices of the anchors: for each pair the right one and the left one, then the midline.

    Args:
        pairs: names of the pairs.
        midline: names of the anchors on the midline.
        cage: candidate vertices (the skin of the cage) on the average adult, canonical units.
        surface: the subdivided surface, whose vertices `landmarks` and `ear` count.
        landmarks: the 68 iBUG landmarks.
        ear: vertices of the left ear.
        mirror: mirror map of the candidates.
    """
    places = {name: surface[landmarks[list(which)]].mean(0) for name, which in LANDMARKS.items()}
    places[EAR] = surface[ear].mean(0)
    on_midline = mirror == np.arange(len(mirror))
    left = {name: _vertex(name, places, cage, ~on_midline & (cage[:, 0] > 0)) for name in pairs}
    middle = [_vertex(name, places, cage, on_midline) for name in midline]
    return np.array([v for name in pairs for v in (mirror[left[name]], left[name])] + middle, dtype=np.int32)


def _vertex(name: str, places: dict[str, np.ndarray], cage: np.ndarray, allowed: np.ndarray) -> int:
    if name in places:
        distance = np.linalg.norm(cage - places[name], axis=1)
    else:
        azimuth, elevation = np.radians(DIRECTIONS[name])
        towards = np.array(
            [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
        )
        distance = -(cage @ towards) / np.linalg.norm(cage, axis=1)
    return int(np.flatnonzero(allowed)[distance[allowed].argmin()])
