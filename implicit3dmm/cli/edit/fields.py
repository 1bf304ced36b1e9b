"""Edits of fields' codes: parts taken from another head, drawn anew, moved or mirrored; other expressions."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import OmitArgPrefixes

from implicit3dmm.cli.common import Device, open_device, output_folder
from implicit3dmm.cli.edit.common import Donor, Head, told
from implicit3dmm.cli.edit.registered import interpolate_registered, transfer_registered

if TYPE_CHECKING:
    from implicit3dmm.fields import ConditionedField
    from implicit3dmm.models import HeadModel


@dataclass(frozen=True)
class Output:
    """With what, and how fine."""

    model: str = "imhead"
    """Released model or weights file that codes belong to and scans are fitted with."""
    resolution: int = 192
    """Cells along the longest side of the meshes' box; registered heads have their own vertices."""
    device: Device = "auto"
    """Where to compute; registered heads are edited on the CPU."""

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
        head: Codes (.safetensors) of a fit, a sample or an edit, or a scan to fit; for a network of registered heads
            such as lamm, a registered mesh.
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
    from implicit3dmm.mesh_models.model import is_network_file
    from implicit3dmm.models import model_file

    if not shares:
        raise InputError("no share is given; give one or more, such as --shares 0.5 1")
    if in_turn and not part:
        raise InputError("--in-turn without parts; give them in their order, such as --part nose eyes mouth")
    about = {"edit": "interpolate", "head": str(head), "donor": str(donor), "parts": part, "shares": shares}
    if is_network_file(model_file(output.model)):
        if part:
            raise InputError(f"{output.model} interpolates whole heads; take parts by 'edit drag --towards' instead")
        return interpolate_registered(head, donor, out, shares, output.model, about)
    model = output.load()
    with output_folder(out):
        before, other = open_head(head, model), open_head(donor, model)
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
    factor: str = "expression",
    output: TheOutput = Output(),
) -> int:
    """Gives a head the expression of another one.

    Args:
        head: Codes (.safetensors) of a fit, a sample or an edit, or a scan to fit; for a network of registered heads
            such as adversarial, a registered mesh.
        donor: Whose expression; the same kinds of files.
        out: Folder for meshes, heads, picture and report.
        how: Whether the expression replaces that of the head or is added to it.
        factor: What is transferred; networks of registered heads know identity too.
        output: With what, and how fine.
    """
    from implicit3dmm.editing import open_head, transfer_expression
    from implicit3dmm.errors import InputError
    from implicit3dmm.mesh_models.model import is_network_file
    from implicit3dmm.models import model_file

    about = {"edit": "transfer", "head": str(head), "donor": str(donor), "how": how, "factor": factor}
    if is_network_file(model_file(output.model)):
        return transfer_registered(head, donor, out, how, factor, output.model, about)
    if factor != "expression":
        raise InputError(f"factor {factor!r}: {output.model} transfers expressions; give a network such as adversarial")
    model = output.load()
    with output_folder(out):
        before, other = open_head(head, model), open_head(donor, model)
        field = transfer_expression(before.field, other.field, how=how)
        return _save(out, model, before, [field], about, output)


def _weight(text: str) -> tuple[str, float]:
    """A name and its weight, which is 1 where none is given."""
    from implicit3dmm.errors import InputError

    name, _, weight = text.partition("=")
    try:
        return name, float(weight or 1)
    except ValueError:
        raise InputError(f"the weight of {name} is {weight!r}; expected a number, such as {name}=0.8") from None


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

    return told(out, save_edits(out, model, before, list(edited), about=about, resolution=output.resolution, **shown))
