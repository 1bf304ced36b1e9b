"""Pictures laid over the faces of a mesh, and the material files that name them."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from implicit3dmm.errors import InputError

WHITE = (255, 255, 255)

log = logging.getLogger(__name__)

# Options of a texture line in a material file and how many words follow each; the rest is the file's name.
_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-bm": 1, "-boost": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1,
    "-mm": 2, "-o": 3, "-s": 3, "-t": 3, "-texres": 1, "-type": 1,
}  # fmt: skip
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Texture:
    """The colours of a mesh's surface as pictures.

    Attributes:
        pictures: red, green, blue of 8 bits, rows from above; a picture of one pixel is a plain colour.
        picture: which of them each face shows.
        uv: place in the picture of each corner of each face: to the right and upwards, in widths and heights of the
            picture, from its lower left corner. Beyond 0 to 1 the picture repeats.
    """

    pictures: tuple[UInt8[np.ndarray, "_ _ 3"], ...]
    picture: Int[np.ndarray, " f"]
    uv: Float[np.ndarray, "f 3 2"]

    def colors_at(self, faces: Int[np.ndarray, " n"], weights: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
        """Colours of places on the surface, between the four nearest pixels.

        Args:
            faces: the face that each place lies on.
            weights: its barycentric coordinates there.
        """
        places = np.einsum("nc,ncx->nx", weights, self.uv[faces])
        colors = np.zeros((len(faces), 3), np.uint8)
        for number, picture in enumerate(self.pictures):
            shown = self.picture[faces] == number
            colors[shown] = _between_pixels(picture, places[shown])
        return colors

    def with_faces(self, keep: np.ndarray) -> "Texture":
        """The texture of the faces that `keep`, a mask or indices, names."""
        return Texture(self.pictures, self.picture[keep], self.uv[keep])


def joined(textures: list[Texture]) -> Texture:
    """One texture for meshes whose faces are put behind one another."""
    offsets = np.cumsum([0, *(len(texture.pictures) for texture in textures[:-1])])
    return Texture(
        tuple(picture for texture in textures for picture in texture.pictures),
        np.concatenate([texture.picture + offset for texture, offset in zip(textures, offsets, strict=True)]),
        np.concatenate([texture.uv for texture in textures]),
    )


def plain(color: tuple[int, int, int]) -> UInt8[np.ndarray, "1 1 3"]:
    """A picture of one colour."""
    return np.array(color, np.uint8).reshape(1, 1, 3)


def as_picture(image: Image.Image) -> UInt8[np.ndarray, "_ _ 3"]:
    """The colours of an image, without its transparency.

    Raises:
        InputError: it is damaged, or larger than Pillow takes for safe.
    """
    try:
        return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"a texture cannot be read ({error}); a whole picture was expected; export it again") from None


def read_materials(path: Path) -> dict[str, UInt8[np.ndarray, "_ _ 3"]]:
    """The materials of an MTL file by name: the picture `map_Kd`, else the plain colour `Kd`, else white.

    What cannot be read is logged and left out: a scan is worth fitting without its colours.
    """
    materials: dict[str, np.ndarray] = {}
    pictured: set[str] = set()
    name = ""
    for line in _text(path).splitlines():
        head, _, rest = line.strip().partition(" ")
        if head == "newmtl":
            name = rest.strip()
            materials[name] = plain(WHITE)
        elif head == "Kd" and name and name not in pictured and (color := _color(rest)):
            materials[name] = plain(color)
        elif head == "map_Kd" and name and (picture := _read_picture(path.parent, _file_name(rest))) is not None:
            materials[name] = picture
            pictured.add(name)
    return materials


def _between_pixels(picture: UInt8[np.ndarray, "h w 3"], uv: Float[np.ndarray, "n 2"]) -> UInt8[np.ndarray, "n 3"]:
    """Bilinear interpolation; pixel (row, column) is centred at ((column + 0.5) / w, 1 - (row + 0.5) / h)."""
    height, width = picture.shape[:2]
    x, y = uv[:, 0] % 1 * width - 0.5, (1 - uv[:, 1] % 1) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right_share, low_share = (x - left)[:, None], (y - top)[:, None]
    rows, columns = (top % height, (top + 1) % height), (left % width, (left + 1) % width)
    above, below = (
        picture[row, columns[0]] * (1 - right_share) + picture[row, columns[1]] * right_share for row in rows
    )
    return (above * (1 - low_share) + below * low_share).round().astype(np.uint8)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        log.warning("the materials %s cannot be read (%s); the scan has no texture", path, error.strerror)
        return ""


def _read_picture(folder: Path, name: str) -> np.ndarray | None:
    """A picture in a folder; a path of the machine that wrote the file is looked for by its last part."""
    relative = name.replace("\\", "/")
    place = next((p for p in (folder / relative, folder / Path(relative).name) if p.is_file()), None)
    if place is None:
        log.warning("the texture %s does not lie in %s; its faces have no colour of their own", name, folder)
        return None
    try:
        with Image.open(place) as image:
            return as_picture(image)
    except (InputError, OSError, Image.DecompressionBombError) as error:
        log.warning("the texture %s cannot be read (%s); its faces have no colour of their own", place, error)
        return None


def _file_name(words: str) -> str:
    """The file's name behind the options of a texture line; it may hold blanks."""
    rest = words.strip()
    while (option := rest.partition(" ")[0]) in _OPTIONS:
        rest = rest.partition(" ")[2].lstrip()
        for number in range(_OPTIONS[option]):
            word = rest.partition(" ")[0]
            if number and not _NUMBER.fullmatch(word):  # -o, -s and -t take one to three numbers
                break
            rest = rest.partition(" ")[2].lstrip()
    return rest


def _color(words: str) -> tuple[int, int, int] | None:
    numbers = [float(word) for word in words.split() if _NUMBER.fullmatch(word)]
    return tuple(round(255 * min(max(number, 0), 1)) for number in numbers[:3]) if len(numbers) >= 3 else None
