"""Changes to a head: parts taken from another, drawn anew or mirrored, other expressions."""

from implicit3dmm.editing.edits import Step, interpolate, interpolate_in_turn, swap_parts
from implicit3dmm.editing.effect import displacement_mm
from implicit3dmm.editing.expressions import named_expression, transfer_expression
from implicit3dmm.editing.heads import EditableHead, open_fit, open_head
from implicit3dmm.editing.sampling import sample_part

__all__ = [
    "EditableHead",
    "Step",
    "displacement_mm",
    "interpolate",
    "interpolate_in_turn",
    "named_expression",
    "open_fit",
    "open_head",
    "sample_part",
    "swap_parts",
    "transfer_expression",
]
