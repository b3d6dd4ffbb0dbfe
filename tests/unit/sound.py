"""The least that a finished run leaves, for tests of what happens around runs."""

import json

RESULT = {
    "run": {
        "task": "rain", "preset": "tiny", "method": "plain", "seed": 0, "lr": 1e-3, "strength": 0.0
    },
    "stamp": {"device": "CPU", "date": "2026-11-28", "version": "eqreg 0", "hours": 0.1},
    "metrics": {}, "per_image": {}, "curves": {"val": []}, "cost": {"seconds_per_step": 0.1},
    "parameters": 1,
}  # fmt: skip
TEXT = json.dumps(RESULT)
