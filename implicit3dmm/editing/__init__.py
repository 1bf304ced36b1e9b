"""Changes to one part of a head: taken from another head, drawn anew, moved on the way to another."""

from implicit3dmm.editing.edits import interpolate, swap_parts
from implicit3dmm.editing.effect import displacement_mm
from implicit3dmm.editing.heads import EditableHead, open_head
from implicit3dmm.editing.sampling import sample_part

__all__ = ["EditableHead", "displacement_mm", "interpolate", "open_head", "sample_part", "swap_parts"]
