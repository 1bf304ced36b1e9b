"""Edits of registered heads by networks: control points moved, factors transferred, the way to another head."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from implicit3dmm.cli.common import output_folder
from implicit3dmm.cli.edit.common import Head, told

if TYPE_CHECKING:
    import numpy as np

    from implicit3dmm.editing.registered import RegisteredHead
    from implicit3dmm.mesh_models.model import MeshModel


def drag(
    head: Head,
    /,
    out: Path,
    move: tuple[str, ...] = (),
    towards: Path | None = None,
    part: tuple[str, ...] = (),
    draw: int = 0,
    temperature: float = 1.0,
    seed: int = 0,
    model: str = "lamm",
) -> int:
    """Moves control points of a registered head, and with them its regions, by LAMM.

    Points move by hand (--move), to where another head's part has them (--towards, --part), or at random (--draw,
    --part). The head is a mesh in the template's topology, such as 'implicit3dmm register' writes.

    Args:
        head: Registered mesh.
        out: Folder for meshes, picture and report.
        move: Displacements in mm to the subject's left, up and out of the face, such as nose=0,0,5, which moves all
            control points of the nose, or mouth/2=0,-3,0, which moves one.
        towards: Registered mesh whose parts are taken.
        part: Regions that are taken or drawn, such as nose.
        draw: How many heads to draw.
        temperature: Standard deviations of the draws are scaled by it.
        seed: Seed of the draws.
        model: Released LAMM or weights file.
    """
    from implicit3dmm.editing.dragging import drag as drag_points
    from implicit3dmm.editing.dragging import drawn_moves, named_moves, steerable
    from implicit3dmm.editing.registered import open_registered
    from implicit3dmm.errors import InputError
    from implicit3dmm.mesh_models.control import moves_towards
    from implicit3dmm.mesh_models.model import load_network

    if (bool(move), towards is not None, draw > 0).count(True) != 1 or bool(part) == bool(move):
        raise InputError("give either --move, or --towards with --part, or --draw with --part")
    loaded = load_network(model)
    steerable(loaded)
    opened = open_registered(head, loaded)
    about: dict[str, Any] = {"edit": "drag", "head": str(head)}
    if move:
        moves = [named_moves(loaded.topology, dict(map(_move, move)))]
        about["moves"] = move
    elif towards is not None:
        donor = open_registered(towards, loaded)
        moves = [moves_towards(loaded.topology, opened.vertices, donor.vertices, part)]
        about |= {"towards": str(towards), "parts": part}
    else:
        moves = drawn_moves(loaded, part, draw, temperature=temperature, seed=seed)
        about |= {"parts": part, "temperature": temperature, "seed": seed}
    with output_folder(out):
        edited = [drag_points(loaded, opened.vertices, each) for each in moves]
        return _save_registered(out, loaded, opened, edited, about)


def transfer_registered(
    head: Path, donor: Path, out: Path, how: Any, factor: str, name: str, about: dict[str, Any]
) -> int:
    """Gives a registered head a factor of another one; `edit transfer` of a network, by its `name`."""
    from implicit3dmm.editing.code_edits import transfer_factor
    from implicit3dmm.mesh_models.model import load_network

    model = load_network(name)
    model.network.place(factor)
    return _between(head, donor, out, model, about, lambda *pair: [transfer_factor(model, *pair, factor, how=how)])


def interpolate_registered(
    head: Path, donor: Path, out: Path, shares: tuple[float, ...], name: str, about: dict[str, Any]
) -> int:
    """Moves a registered head on the way to another one; `edit interpolate` of a network, by its `name`."""
    from implicit3dmm.editing import code_edits
    from implicit3dmm.mesh_models.model import load_network

    model = load_network(name)

    def way(own: "np.ndarray", other: "np.ndarray") -> "list[np.ndarray]":
        return [code_edits.interpolate_registered(model, own, other, share) for share in shares]

    return _between(head, donor, out, model, about, way)


def _between(
    head: Path,
    donor: Path,
    out: Path,
    model: "MeshModel",
    about: dict[str, Any],
    edit: "Callable[[np.ndarray, np.ndarray], list[np.ndarray]]",
) -> int:
    from implicit3dmm.editing.registered import open_registered

    before, other = open_registered(head, model), open_registered(donor, model)
    with output_folder(out):
        return _save_registered(out, model, before, edit(before.vertices, other.vertices), about)


def _move(text: str) -> tuple[str, list[float]]:
    """A name and three numbers."""
    from implicit3dmm.errors import InputError

    name, _, numbers = text.partition("=")
    try:
        return name, [float(number) for number in numbers.split(",")]
    except ValueError:
        raise InputError(f"{text!r} is no move; a name and three numbers in mm, such as nose=0,0,5, expected") from None


def _save_registered(
    out: Path, model: "MeshModel", before: "RegisteredHead", edited: "list[np.ndarray]", about: dict[str, Any]
) -> int:
    from implicit3dmm.editing.files import save_meshes
    from implicit3dmm.heads.frame import UNIT_MM

    report = save_meshes(
        out,
        before.mesh(model, before.vertices),
        [before.mesh(model, vertices) for vertices in edited],
        upright=before.placement.inverse(),
        mm_per_unit=UNIT_MM / before.placement.scale,
        about={"model": model.name, **about, "warnings": []},
    )
    return told(out, report)
