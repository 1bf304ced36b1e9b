"""implicit3dmm edit: parts of a head taken from another, drawn anew, mirrored or moved; other expressions."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg, subcommand

from implicit3dmm.cli.common import Device, open_device, output_folder, tell

if TYPE_CHECKING:
    from implicit3dmm.fields import ConditionedField
    from implicit3dmm.models import HeadModel

Head = Positional[Annotated[Path, arg(metavar="HEAD")]]
Donor = Positional[Annotated[Path, arg(metavar="DONOR")]]


@dataclass(frozen=True)
class Output:
    """With what, and how fine."""

    model: str = "imhead"
    """Released model or weights file that codes belong to and scans are fitted with."""
    resolution: int = 192
    """Cells along the longest side of the meshes' box."""
    device: Device = "auto"
    """Where to compute."""

    def load(self) -> "HeadModel":
        """The model."""
        from implicit3dmm.models import load_model

        return load_model(self.model, device=open_device(self.device))


TheOutput = OmitArgPrefixes[Output]


def swap(
    head: Head,
    donor: Donor,
    /,
    out: Path,
    part: tuple[str, ...],
    frames: Literal["part", "all"] = "part",
    output: TheOutput = Output(),
) -> int:
    """Takes parts of a head from another one.

    Args:
        head: Codes (.safetensors) of a fit, a sample or an edit, or a scan to fit.
        donor: Where the parts are taken from; the same kinds of files.
        out: Folder for meshes, heads, picture and report.
        part: Parts, such as nose mouth; nose_L is the subject's left half.
        frames: Whether the parts' local frames alone move, or the landmark network places all anew.
        output: With what, and how fine.
    """
    from implicit3dmm.editing import open_head, swap_parts

    model = output.load()
    with output_folder(out):
        before, other = open_head(head, model), open_head(donor, model)
        field = swap_parts(before.field, other.field, part, frames=frames)
        about = {"edit": "swap", "head": str(head), "donor": str(donor), "parts": part, "frames": frames}
        return _save(out, model, before, [field], about, output)


def sample(
    head: Head,
    /,
    out: Path,
    part: str,
    count: int = 4,
    temperature: float = 1.0,
    given: Literal["neighbours", "nothing"] = "neighbours",
    seed: int = 0,
    output: TheOutput = Output(),
) -> int:
    """Draws a part of a head anew.

    Args:
        head: Codes (.safetensors) of a fit, a sample or an edit, or a scan to fit.
        out: Folder for meshes, heads, picture and report.
        part: The part, such as nose; ears_L is the subject's left ear.
        count: How many to draw.
        temperature: Standard deviations are scaled by it.
        given: Whether the part has to go with its neighbours, or is drawn from all parts of its kind.
        seed: Seed of the draws; equal seeds give equal heads.
        output: With what, and how fine.
    """
    import torch

    from implicit3dmm.editing.heads import open_head
    from implicit3dmm.editing.sampling import sample_part
    from implicit3dmm.errors import InputError

    if count < 1 or not 0 <= temperature < float("inf") or not 0 <= seed < 2**63:
        raise InputError(
            f"count {count}, temperature {temperature}, seed {seed}: give at least 1 part, and a temperature and a "
            "seed of 0 or more"
        )
    model = output.load()
    generator = torch.Generator().manual_seed(seed)
    with output_folder(out):
        before = open_head(head, model)
        drawn = sample_part(model, before.field, part, count, temperature=temperature, given=given, generator=generator)
        about = {"edit": "sample", "head": str(head), "parts": [part], "given": given}
        return _save(out, model, before, drawn, about | {"temperature": temperature, "seed": seed}, output)


def interpolate(
    head: Head,
    donor: Donor,
    /,
    out: Path,
    part: tuple[str, ...] = (),
    shares: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0),
    in_turn: bool = False,
    output: TheOutput = Output(),
) -> int:
    """Moves a head, or parts of it, on the way to another one, and beyond.

    Args:
        head: Codes (.safetensors) of a fit, a sample or an edit, or a scan to fit.
        donor: Where the way leads; the same kinds of files.
        out: Folder for meshes, heads, picture and report.
        part: Parts that move, such as nose mouth; by default the whole head does.
        shares: How far each result has gone: 0 is the head, 1 the other, 1.5 exaggerates, -1 goes the other way.
        in_turn: Whether the parts go one after the other, each through all shares; displacements are then the part's.
        output: With what, and how fine.
    """
    from implicit3dmm.editing import interpolate as interpolate_heads
    from implicit3dmm.editing import interpolate_in_turn, open_head
    from implicit3dmm.errors import InputError

    if not shares:
        raise InputError("no share is given; give one or more, such as --shares 0.5 1")
    if in_turn and not part:
        raise InputError("--in-turn without parts; give them in their order, such as --part nose eyes mouth")
    model = output.load()
    with output_folder(out):
        before, other = open_head(head, model), open_head(donor, model)
        about = {"edit": "interpolate", "head": str(head), "donor": str(donor), "parts": part, "shares": shares}
        if not in_turn:
            moved = [interpolate_heads(before.field, other.field, share, part) for share in shares]
            return _save(out, model, before, moved, about, output)
        steps = list(interpolate_in_turn(before.field, other.field, part, shares))
        labels, since = [f"{step.part} {step.share:g}" for step in steps], [step.since for step in steps]
        fields = [step.field for step in steps]
        return _save(out, model, before, fields, about | {"in_turn": True}, output, labels=labels, since=since)


def mirror(
    head: Head,
    /,
    out: Path,
    part: tuple[str, ...],
    output: TheOutput = Output(),
) -> int:
    """Makes one side of a part the mirror image of the other.

    Args:
        head: Codes (.safetensors) of a fit, a sample or an edit, or a scan to fit.
        out: Folder for meshes, heads, picture and report.
        part: Sides to copy, such as ears_L eyes_L; the other sides become like them.
        output: With what, and how fine.
    """
    from implicit3dmm.editing import open_head

    model = output.load()
    with output_folder(out):
        before = open_head(head, model)
        field = before.field
        for name in part:
            field = field.with_mirrored(name)
        return _save(out, model, before, [field], {"edit": "mirror", "head": str(head), "parts": part}, output)


def express(
    head: Head,
    /,
    out: Path,
    weights: tuple[str, ...] = (),
    output: TheOutput = Output(),
) -> int:
    """Gives a head an expression by name; without any it becomes neutral.

    Args:
        head: Codes (.safetensors) of a fit, a sample or an edit, or a scan to fit.
        out: Folder for meshes, heads, picture and report.
        weights: Expressions and units with their weights, such as smile=0.8 jawOpen=0.3; smile alone is smile=1.
        output: With what, and how fine.
    """
    from implicit3dmm.editing import named_expression, open_head

    model = output.load()
    code = named_expression(model, dict(map(_weight, weights)))
    with output_folder(out):
        before = open_head(head, model)
        about = {"edit": "express", "head": str(head), "weights": weights}
        return _save(out, model, before, [before.field.with_expression(code)], about, output)


def transfer(
    head: Head,
    donor: Donor,
    /,
    out: Path,
    how: Literal["replace", "add"] = "replace",
    output: TheOutput = Output(),
) -> int:
    """Gives a head the expression of another one.

    Args:
        head: Codes (.safetensors) of a fit, a sample or an edit, or a scan to fit.
        donor: Whose expression; the same kinds of files.
        out: Folder for meshes, heads, picture and report.
        how: Whether the expression replaces that of the head or is added to it.
        output: With what, and how fine.
    """
    from implicit3dmm.editing import open_head, transfer_expression

    model = output.load()
    with output_folder(out):
        before, other = open_head(head, model), open_head(donor, model)
        field = transfer_expression(before.field, other.field, how=how)
        about = {"edit": "transfer", "head": str(head), "donor": str(donor), "how": how}
        return _save(out, model, before, [field], about, output)


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
    from implicit3dmm.editing.dragging import drawn_moves, named_moves, open_registered, steerable
    from implicit3dmm.editing.files import save_meshes
    from implicit3dmm.errors import InputError
    from implicit3dmm.heads.frame import UNIT_MM
    from implicit3dmm.mesh_models.base import load_network
    from implicit3dmm.mesh_models.control import moves_towards

    if (bool(move), towards is not None, draw > 0).count(True) != 1 or bool(part) == bool(move):
        raise InputError("give either --move, or --towards with --part, or --draw with --part")
    loaded = load_network(model)
    steerable(loaded)
    opened = open_registered(head, loaded)
    about: dict[str, Any] = {"edit": "drag", "model": loaded.name, "head": str(head), "warnings": []}
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
        report = save_meshes(
            out,
            opened.mesh(loaded, opened.vertices),
            [opened.mesh(loaded, drag_points(loaded, opened.vertices, each)) for each in moves],
            upright=opened.placement.inverse(),
            mm_per_unit=UNIT_MM / opened.placement.scale,
            about=about,
        )
        return _told(out, report)


EDITS = {
    "swap": swap,
    "sample": sample,
    "interpolate": interpolate,
    "mirror": mirror,
    "express": express,
    "transfer": transfer,
    "drag": drag,
}

Choice = Union[tuple(Annotated[Any, subcommand(name, constructor=run)] for name, run in EDITS.items())]  # noqa: UP007


def edit(choice: OmitSubcommandPrefixes[OmitArgPrefixes[Choice]]) -> int:
    """Changes nose, mouth, eyes, ears, chin, forehead, cheeks, cranium or neck of a head, or its expression.

    docs/edit.md says what happens and shows the results.

    Args:
        choice: What to do; each has its own --help.
    """
    return choice


def _weight(text: str) -> tuple[str, float]:
    """A name and its weight, which is 1 where none is given."""
    from implicit3dmm.errors import InputError

    name, _, weight = text.partition("=")
    try:
        return name, float(weight or 1)
    except ValueError:
        raise InputError(f"the weight of {name} is {weight!r}; expected a number, such as {name}=0.8") from None


def _move(text: str) -> tuple[str, list[float]]:
    """A name and three numbers."""
    from implicit3dmm.errors import InputError

    name, _, numbers = text.partition("=")
    try:
        return name, [float(number) for number in numbers.split(",")]
    except ValueError:
        raise InputError(f"{text!r} is no move; a name and three numbers in mm, such as nose=0,0,5, expected") from None


def _save(
    out: Path,
    model: "HeadModel",
    before: Any,
    edited: "Iterable[ConditionedField]",
    about: dict[str, Any],
    output: Output,
    **shown: Any,
) -> int:
    from implicit3dmm.editing.files import save_edits

    return _told(out, save_edits(out, model, before, list(edited), about=about, resolution=output.resolution, **shown))


def _told(out: Path, report: dict[str, Any]) -> int:
    for warning in report["warnings"]:
        tell(f"before: {warning}")
    for entry in report["edits"]:
        for warning in entry["warnings"]:
            tell(f"{entry['mesh']}: {warning}")
        print(
            f"{entry['mesh']}: {entry['moved_share']:.1%} of the vertices moved, by {entry['mean_of_moved_mm']:.2f} mm"
            f" in the mean and {entry['most_mm']:.2f} mm at most"
        )
    print(f"results in {out}; picture.png shows them")
    return 0
