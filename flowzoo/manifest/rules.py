"""The rules between an entry's fields as JSON Schema: what :mod:`flowzoo.manifest.schema` says in Python."""

from __future__ import annotations

from typing import Any

from flowzoo.manifest.values import MAX_SEED, MAX_TOLERANCE

__all__ = ["ENTRY_RULES"]

_CEILING = {"properties": {"tolerance": {"maximum": MAX_TOLERANCE}}}
_SEEDED = {"properties": {"seed": {"maximum": MAX_SEED}}}

_NULL = {"type": "null"}
_ONE_UNIT = {
    "anyOf": [
        _NULL,
        {
            "oneOf": [
                {"properties": {unit: {"not": _NULL}}, "required": [unit]}  # bits per dimension, or nats
                for unit in ("bpd", "nats")
            ]
        },
    ]
}

ENTRY_RULES: list[dict[str, Any]] = [
    {"properties": {"measured": {"allOf": [_CEILING, _SEEDED]}, "fingerprint": _CEILING}},
    {"properties": {"measured": _ONE_UNIT, "fingerprint": _ONE_UNIT}},
    {"properties": {"labels": {"properties": {"accuracy": {"maximum": 1}}}}},
    {
        "if": {"properties": {"valid_bpd": {"const": False}}, "required": ["valid_bpd"]},
        "then": {"properties": {"measured": {"properties": {"bpd": {"type": "null"}}}}},
    },
    {"properties": {"training": _SEEDED, "sampling": _SEEDED}},
    {
        "if": {"properties": {"status": {"const": "unpublished"}}},
        "then": {
            "properties": {name: {"type": "null"} for name in ("weights", "measured", "fingerprint")},
        },
        "else": {"properties": {"weights": {"type": "object"}}, "required": ["weights"]},
    },
    {
        "if": {"properties": {"published": {"type": "object"}}, "required": ["published"]},
        "then": {"properties": {"published_reason": {"type": "null"}}},
        "else": {"properties": {"published_reason": {"type": "string"}}, "required": ["published_reason"]},
    },
    {
        "properties": {
            "weights": {
                "if": {"properties": {"revision": {"type": "string"}}, "required": ["revision"]},
                "then": {"properties": {"repo_id": {"type": "string"}}, "required": ["repo_id"]},
            }
        }
    },
]
"""The rules of :meth:`flowzoo.manifest.schema.Entry.faults` as JSON Schema."""
