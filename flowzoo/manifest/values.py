"""What the values of a manifest's fields may be, each with the words of an error."""

from __future__ import annotations

from typing import Annotated, Literal

from flowzoo.manifest.typed_json import Rule

Name = Annotated[
    str,
    Rule(
        pattern=r"[a-z0-9]+([-_.][a-z0-9]+)*",
        longest=100,
        words="at most 100 lower-case letters and digits, joined by - _ or .",
    ),
]
Text = Annotated[str, Rule(pattern=r"[\s\S]*\S[\s\S]*", words="a text that is not empty")]
Digest = Annotated[str, Rule(pattern=r"[0-9a-f]{64}", words="64 lower-case hexadecimal digits (SHA-256)")]
Revision = Annotated[str, Rule(pattern=r"[0-9a-f]{40}", words="40 lower-case hexadecimal digits (a commit)")]
RepoId = Annotated[
    str,
    Rule(
        pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*",
        words="a repository as 'organisation/name'",
    ),
]
Filename = Annotated[
    str,
    Rule(
        pattern=r"[A-Za-z0-9_]([A-Za-z0-9_-]|\.(?!\.))*\.safetensors",
        words="a bare file name of letters, digits, - _ and . that ends in .safetensors, without directories",
    ),
]
Day = Annotated[
    str, Rule(pattern=r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])", words="a day such as 2026-11-28")
]
Count = Annotated[int, Rule(least=1, words="an integer of at least 1")]
Seed = Annotated[int, Rule(least=0, words="an integer of at least 0")]
Positive = Annotated[float, Rule(above=0, words="a number above 0")]
NotNegative = Annotated[float, Rule(least=0, words="a number of at least 0")]
MAX_TOLERANCE = 1e-3
"""Bits per dimension: ten times what separates two machines; more would verify other weights."""
MAX_SEED = 2**64 - 1
FigureKind = Literal["exact", "bound", "unbiased", "biased"]
InverseKind = Literal["analytic", "sequential", "numeric"]
StoredDtype = Literal["float64", "float32", "bfloat16", "float16"]
