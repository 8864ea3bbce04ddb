"""`make nightly`: the long parts one after the other; says what failed and how long each took."""

from __future__ import annotations

import subprocess
import sys
import time

PARTS = {
    "faults, three seeds": ["make", "faults"],
    "200 random kills": ["make", "kills"],
    "whole reviews on a secure mesh": ["make", "secure"],
    "models on real vLLM": ["make", "test-vllm"],
    "exports killed 100 times": [
        *(sys.executable, "-m", "pytest", "--timeout", "3000", "tests/integration/test_export.py")
    ],
    "commands of the pages, in a fresh clone": [
        *(sys.executable, "-m", "pytest", "--timeout", "3000", "tests/docs/test_pasted.py")
    ],
    "fuzz, 1 million records": [sys.executable, "-m", "bench.fuzz", "--cases", "1000000"],
    "benchmark": ["make", "bench"],
}


def main() -> int:
    took: list[str] = []
    failed = False
    for name, command in PARTS.items():
        print(f"=== {name}: {' '.join(command)}", flush=True)
        began = time.monotonic()
        code = subprocess.run(command, check=False).returncode
        failed = failed or code != 0
        verdict = "passed" if code == 0 else f"FAILED with exit code {code}"
        took.append(f"{name}: {verdict} after {(time.monotonic() - began) / 60:.0f} min")
    print("\n".join(took))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
