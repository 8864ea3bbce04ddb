from __future__ import annotations

import argparse
import json
import sys

from bench.fuzz.run import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(description="Whatever strangers may write, through intake.")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    report = fuzz(arguments.cases, arguments.seed, tell_every=50_000)
    print(json.dumps(report.__dict__, indent=2))
    return 0 if sum(report.outcomes.values()) == arguments.cases else 1


if __name__ == "__main__":
    sys.exit(main())
