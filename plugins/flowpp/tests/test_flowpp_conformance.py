"""Flow++ under flowzoo's conformance kit."""

from __future__ import annotations

from flowzoo.testing import conformance_suite

test_conformance = conformance_suite("flowpp")
