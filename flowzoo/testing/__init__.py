"""The conformance kit for plugin authors: plain functions first, pytest glue second.

```python
from flowzoo.testing import run_conformance

for result in run_conformance("glow"):
    print(result.check, result.passed, result.detail)
```

In a plugin's test suite:

```python
from flowzoo.testing import conformance_suite

test_conformance = conformance_suite("glow")
```
"""

from flowzoo.testing.conformance import (
    CHECKS,
    CheckResult,
    conformance_suite,
    run_checks,
    run_conformance,
)
from flowzoo.testing.randomize import random_data, random_images, random_labels, randomize
from flowzoo.testing.subject import NotAsked, Subject

__all__ = [
    "CHECKS",
    "CheckResult",
    "NotAsked",
    "Subject",
    "conformance_suite",
    "random_data",
    "random_images",
    "random_labels",
    "randomize",
    "run_checks",
    "run_conformance",
]
