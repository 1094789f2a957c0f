"""What a kept result depends on."""

import dataclasses
import hashlib
import json
from typing import Any


def fingerprint(vlm: Any, segmenter: Any, options: Any) -> str:
    """Differs wherever results may."""
    content = json.dumps([vlm, segmenter, dataclasses.asdict(options)], sort_keys=True, default=repr)
    return hashlib.sha256(content.encode()).hexdigest()
