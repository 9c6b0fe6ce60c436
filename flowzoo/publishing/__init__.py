"""From a training run to a model on the Hugging Face Hub and an entry in the manifest."""

from __future__ import annotations

from flowzoo.manifest.write import write_entry
from flowzoo.publishing.checks import check_before_upload
from flowzoo.publishing.stage import Staged, stage_entry, stage_run
from flowzoo.publishing.upload import upload

__all__ = ["Staged", "check_before_upload", "stage_entry", "stage_run", "upload", "write_entry"]
