"""The built-in heads: the CC0 MakeHuman head, sampled over age, sex, ancestry and local shape.

The distribution is calibrated on the per-region spread of a light-stage data set (ICT-FaceKit): adults of this
source vary about as much at nose, mouth, eyes, chin and forehead as those scans do.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from implicit3dmm.data.sources.base import Subject, register_source
from implicit3dmm.geometry.similarity import fit_similarity
from implicit3dmm.heads.closing import Closing
from implicit3dmm.heads.subdivision import catmull_clark, triangulate
from implicit3dmm.heads.template import HeadTemplate
from implicit3dmm.resources import asset

MM_PER_DM = 100.0
TARGET_STEP = 1e-3  # dm: the authored targets are multiples of it, so int16 loses nothing

AGE_YEARS = (1.0, 11.5, 25.0, 90.0)
AGE_AXIS = (0.0, 1 / 3, 2 / 3, 1.0)  # baby, child, young, old
AGE_BANDS = ((0.15, 3, 12), (0.10, 12, 20), (0.60, 20, 45), (0.12, 45, 65), (0.03, 65, 85))
"""(share, from, to) in years: the span of imHead's training population, children and old people included."""
ANCESTRIES = ("african", "asian", "caucasian")

LOCAL_SPREAD = 0.22
"""Standard deviation of the paired local targets; beyond 0.4 the heads become caricatures."""
DAMPING = {
    "forehead-scale-vert": 0.35, "head-scale-vert": 0.5, "head-scale-horiz": 0.6, "head-scale-depth": 0.6,
    "head-back-scale-depth": 0.6, "head-angle": 0.5, "forehead-nubian": 0.6, "forehead-trans": 0.7,
    "head-age": 0.5, "head-fat": 0.5, "chin-height": 0.8, "chin-jaw-drop": 0.7,
}  # fmt: skip
NECK_DAMPING = 0.5
OPPOSITES = (
    ("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"), ("concave", "convex"),
    ("compress", "uncompress"), ("pointed", "triangle"), ("square", "round"),
)  # fmt: skip
RIGID_MOTIONS = ("head-trans", "neck-trans")  # move the head as a whole: no shape, left out
OUTLINES = (
    "head-diamond", "head-oval", "head-rectangular", "head-triangular", "head-invertedtriangular",
    "head-round", "head-square",
)  # fmt: skip

JAW_RADIANS = 0.35
"""Rotation of the jaw at weight 1 of the unit jawRotate, about 20 degrees."""


def _both(unit: str, weight: float = 1.0) -> dict[str, float]:
    return {f"{unit}Left": weight, f"{unit}Right": weight}


EXPRESSIONS: Mapping[str, Mapping[str, float]] = {
    "neutral": {},
    "smile": _both("mouthSmile", 0.9),
    "mouth_open": {"jawOpen": 0.8},
    "smile_open": _both("mouthSmile", 0.7) | {"jawOpen": 0.35},
    "anger": _both("browDown") | _both("noseSneer", 0.6) | _both("mouthPress", 0.5),
    "sadness": {"browInnerUp": 0.9, "mouthShrugLower": 0.4} | _both("mouthFrown", 0.9),
    "surprise": {"browInnerUp": 1.0, "jawOpen": 0.4} | _both("browOuterUp") | _both("eyeWide"),
    "disgust": _both("noseSneer") | _both("mouthUpperUp", 0.8) | _both("eyeSquint", 0.5),
    "lip_pucker": {"mouthPucker": 1.0},
    "cheek_puff": {"cheekPuff": 1.0} | _both("mouthPress", 0.4),
    "eyes_closed": _both("eyeBlink"),
    "mouth_left": {"mouthLeft": 1.0, "jawLeft": 0.4},
    "lip_roll": {"mouthRollLower": 0.9, "mouthRollUpper": 0.6},
    "jaw_rotated": {"jawRotate": 0.8},
    "wink_left": {"eyeBlinkLeft": 1.0},
    "wink_right": {"eyeBlinkRight": 1.0},
}
"""Thirteen default expressions, the open mouth once more as a rotation of the jaw, and a wink of each eye."""

NOT_COMBINED = ("tongueOut", "mouthClose")
"""Face units that random expressions leave out: the first moves no skin, the second belongs to an open jaw."""


@register_source("makehuman")
class MakeHumanHeads:
    """Heads of the CC0 MakeHuman/MPFB2 base mesh: 14,642 vertices, watertight, genus 0."""

    name = "makehuman"
    version = "1"
    licence = "CC0 1.0 (MakeHuman/MPFB2; see makehuman_head.LICENSE.txt)"

    def __init__(self):
        with np.load(asset("makehuman_head.npz"), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        self._mean = arrays["mean_q4"].astype(np.float32) * 1e-4 * MM_PER_DM
        basis = [arrays[key].reshape(-1, *self._mean.shape) for key in ("macro", "race", "local", "asym")]
        self._basis = (np.concatenate(basis) * (TARGET_STEP * MM_PER_DM)).astype(np.float32)
        self._identity = _IdentitySampler(
            [str(n) for n in arrays["local_names"]], [str(n) for n in arrays["asym_names"]]
        )
        face = ("jawRotate", *(str(n) for n in arrays["expr_names"]))
        other = tuple(str(n) for n in arrays["unit_names"])
        self.unit_names = face + other
        self.combined_units = tuple(name for name in face if name not in NOT_COMBINED)
        self.expressions = EXPRESSIONS | {name: {name: 1.0} for name in other}
        # The second set is authored for each ancestry, to within 3 mm of each other.
        ancestral = np.mean([arrays[f"unit_{name}"] for name in ANCESTRIES], axis=0)
        self._units = np.concatenate([arrays["expr"], ancestral]).astype(np.float32) * (TARGET_STEP * MM_PER_DM)
        self._units[:, int(arrays["n_skin"]) :] = 0  # an expression does not move the eyeballs
        self._closing = Closing.from_arrays(arrays)
        self._eyes = np.split(np.arange(int(arrays["n_skin"]), len(self._mean)), 2)
        faces = [tuple(int(v) for v in face if v >= 0) for face in arrays["cage_faces"]]
        self._subdivision = catmull_clark(faces, self._closing.vertex_count)
        self.template = self._template(arrays)
        self._jaw = self._jaw_hinge()

    def sample_subject(self, rng: np.random.Generator) -> Subject:
        """Draws age, sex, ancestry, build and local shape of one person."""
        return self._identity.sample(rng)

    def vertices(
        self, coefficients: Float[np.ndarray, "b c"], units: Float[np.ndarray, "b u"] | None = None
    ) -> Float[np.ndarray, "b v 3"]:
        """Closed level-1 vertices in mm; `units` are weights of `unit_names`, the first the jaw's rotation.

        An expression is authored for the adult head, so its offsets are scaled by each subject's size.
        """
        tracked = self._tracked(coefficients)
        if units is not None:
            size = self._size(tracked)
            offsets = units[:, 1:].astype(np.float32) @ self._units.reshape(len(self._units), -1)
            tracked = self._rotate_jaw(tracked, units[:, 0]) + size[:, None, None] * offsets.reshape(tracked.shape)
        skin = tracked[:, : self._closing.skin_count]
        return self._subdivision.apply(self._closing.apply(skin, tuple(tracked[:, eye] for eye in self._eyes)))

    def _tracked(self, coefficients: np.ndarray) -> np.ndarray:
        blend = coefficients.astype(np.float32) @ self._basis.reshape(len(self._basis), -1)
        return self._mean + blend.reshape(-1, *self._mean.shape)

    def _size(self, tracked: np.ndarray) -> np.ndarray:
        """Root mean square radius of each neutral skin over the average adult's."""
        skin = tracked[:, : self._closing.skin_count]
        radius = np.sqrt(np.square(skin - skin.mean(1, keepdims=True)).sum(-1).mean(-1))
        return radius / self._adult_radius

    def _template(self, arrays: Mapping[str, np.ndarray]) -> HeadTemplate:
        average = self._identity.average_adult()
        skin = self._tracked(average[None])[0, : self._closing.skin_count]
        self._adult_radius = np.sqrt(np.square(skin - skin.mean(0)).sum(-1).mean())
        vertices = self.vertices(average[None])[0].astype(np.float64)
        rigid = arrays["rigid_level1"].astype(np.int64)
        reference = (arrays["reference_rigid"].astype(np.float64) - arrays["frame_centre"]) / arrays["frame_unit"]
        quads = self._subdivision.quads
        corners = [len(face) for face in self._subdivision.faces]  # a face becomes one quad a corner
        return HeadTemplate(
            vertices=fit_similarity(vertices[rigid], reference).apply(vertices),
            triangles=triangulate(quads),
            quads=quads,
            cap=np.repeat(arrays["cage_face_tag"] == "neck_cap", 2 * np.array(corners)),
            regions=arrays["region_level1"],
            landmarks=arrays["landmarks68_level1"].astype(np.int64),
            anchors=arrays["anchors39_cage"].astype(np.int64),
            mirror=self._subdivision.mirror(arrays["mirror"].astype(np.int64)),
            rigid=rigid,
            reference=reference,
        )

    def _jaw_hinge(self) -> tuple[np.ndarray, np.ndarray]:
        """How much each tracked vertex follows the jaw (0 to 1), and the tracked vertices nearest its hinge."""
        offsets = np.linalg.norm(self._units[self.unit_names.index("jawOpen") - 1], axis=-1)
        follow = np.clip(offsets / np.quantile(offsets[offsets > 0], 0.98), 0, 1)
        ears = self.template.anchors[[20, 21]]  # anchors are cage vertices, and these are skin
        assert (ears < self._closing.skin_count).all()
        return follow.astype(np.float32), ears

    def _rotate_jaw(self, tracked: np.ndarray, weight: np.ndarray) -> np.ndarray:
        follow, ears = self._jaw
        hinge = tracked[:, ears].mean(1, keepdims=True)
        angle = JAW_RADIANS * weight[:, None] * follow
        y, z = (tracked - hinge)[..., 1], (tracked - hinge)[..., 2]
        turned = tracked.copy()
        turned[..., 1] = hinge[..., 1] + np.cos(angle) * y - np.sin(angle) * z
        turned[..., 2] = hinge[..., 2] + np.sin(angle) * y + np.cos(angle) * z
        return turned


class _IdentitySampler:
    """Draws coefficients of the basis [72 macro | 24 ancestry | local | asymmetry]."""

    MACRO, RACE = (2, 4, 3, 3), (3, 2, 4)

    def __init__(self, local_names: list[str], asym_names: list[str]):
        self._local = {name: i for i, name in enumerate(local_names)}
        self._asym_count = len(asym_names)
        self._pairs = _opposite_pairs(set(local_names) - {"head-square", "head-round"})
        self._outlines = [name for name in OUTLINES if name in self._local]

    def average_adult(self) -> np.ndarray:
        """Twenty-five years, between the sexes and ancestries, of average build."""
        local = np.zeros(len(self._local) + self._asym_count)
        return self._join(2 / 3, 0.5, 0.5, 0.5, np.full(3, 1 / 3), local)

    def sample(self, rng: np.random.Generator) -> Subject:
        share, low, high = zip(*AGE_BANDS, strict=True)
        band = rng.choice(len(AGE_BANDS), p=share)
        years = rng.uniform(low[band], high[band])
        sex = int(rng.random() < 0.5)  # 0 male, 1 female, blended a little towards the other
        blend = abs(sex - min(abs(rng.normal(0, 0.12)), 0.45))
        muscle, weight = rng.beta(3, 3, 2)
        ancestry = rng.dirichlet(np.full(3, 0.5))
        age = np.interp(years, AGE_YEARS, AGE_AXIS)
        coefficients = self._join(age, blend, muscle, weight, ancestry, self._sample_local(rng))
        about = {"years": round(years, 1), "sex": ("male", "female")[sex]}
        about |= {name: round(float(part), 3) for name, part in zip(ANCESTRIES, ancestry, strict=True)}
        return Subject(coefficients, about)

    def _sample_local(self, rng: np.random.Generator) -> np.ndarray:
        local = np.zeros(len(self._local))
        for stem, (negative, positive) in self._pairs.items():
            if stem.startswith(RIGID_MOTIONS) or stem.startswith("r-"):
                continue
            spread = LOCAL_SPREAD * DAMPING.get(stem, 1.0)
            spread *= NECK_DAMPING if stem.startswith(("neck-", "measure-neck")) else 1.0
            value = np.clip(rng.normal(0, spread), -1, 1)
            if not stem.startswith("l-"):
                self._set(local, negative, positive, value)
                continue
            difference = rng.normal(0, 0.06)
            self._set(local, negative, positive, value + difference)
            self._set(local, *(f"r-{name[2:]}" for name in (negative, positive)), value - difference)
        local[self._local[rng.choice(self._outlines)]] += min(abs(rng.normal(0, 0.3)), 0.8)
        asymmetry = np.abs(rng.normal(0, 0.12, self._asym_count)) * (rng.random(self._asym_count) < 0.25)
        return np.concatenate([local, asymmetry])

    def _set(self, local: np.ndarray, negative: str, positive: str, value: float) -> None:
        local[self._local[positive]] = max(value, 0)
        local[self._local[negative]] = max(-value, 0)

    def _join(self, age, sex, muscle, weight, ancestry, local) -> np.ndarray:
        sexes = np.array([1 - sex, sex])
        ages = _hat(age, np.array(AGE_AXIS))
        thirds = np.array([0, 0.5, 1])
        macro = np.einsum("g,a,m,w->gamw", sexes, ages, _hat(muscle, thirds), _hat(weight, thirds))
        race = np.einsum("r,g,a->rga", ancestry, sexes, ages)
        return np.concatenate([macro.ravel(), race.ravel(), local]).astype(np.float32)


def _hat(value: float, knots: np.ndarray) -> np.ndarray:
    """Weights of linear interpolation between the knots."""
    return np.array([np.interp(value, knots, row) for row in np.eye(len(knots))])


def _opposite_pairs(names: set[str]) -> dict[str, tuple[str, str]]:
    """Stem -> (negative, positive) for each pair of opposed targets, in alphabetical order."""
    pairs = {}
    for name in sorted(names):
        for negative, positive in OPPOSITES:
            stem = name.removesuffix(f"-{negative}")
            if stem != name and f"{stem}-{positive}" in names:
                pairs[stem] = (name, f"{stem}-{positive}")
    return pairs
