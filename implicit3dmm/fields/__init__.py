"""Architectures: one file each, behind one interface (base.py)."""

from implicit3dmm.fields.base import (
    ConditionedField,
    Field,
    Jacobian,
    build_field,
    field_configs,
    field_from_mapping,
    field_to_mapping,
    register_field,
)
from implicit3dmm.fields.blending import BlendConfig
from implicit3dmm.fields.check import FieldCheckError, check_field
from implicit3dmm.fields.deepsdf import DeepSDF, DeepSDFConfig
from implicit3dmm.fields.expnet import ExpNet, ExpNetConfig
from implicit3dmm.fields.expression_warp import ExpressionWarp, ExpressionWarpConfig
from implicit3dmm.fields.forward_warp import ForwardWarp, ForwardWarpConfig
from implicit3dmm.fields.imhead import ImHead, ImHeadConfig
from implicit3dmm.fields.parts_cascade import PartsCascade, PartsCascadeConfig

__all__ = [
    "BlendConfig",
    "ConditionedField",
    "DeepSDF",
    "DeepSDFConfig",
    "ExpNet",
    "ExpNetConfig",
    "ExpressionWarp",
    "ExpressionWarpConfig",
    "Field",
    "FieldCheckError",
    "ForwardWarp",
    "ForwardWarpConfig",
    "ImHead",
    "ImHeadConfig",
    "Jacobian",
    "PartsCascade",
    "PartsCascadeConfig",
    "build_field",
    "check_field",
    "field_configs",
    "field_from_mapping",
    "field_to_mapping",
    "register_field",
]
