"""The campaign: ``python -m hostile --cases 10000 --seconds 900`` in the folder of the tests.

It ends with status 1 if any case ended in a traceback, hung, touched a file outside of its folder, printed a
control character, ran anything, or took a changed checkpoint for the one that was written.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's client is imported: no case may use the network

from hostile.campaign import campaign


def main() -> int:
    """Run the campaign, and print what was found."""
    parser = argparse.ArgumentParser(description="Feed hostile and broken input to dualproc.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=900.0, help="stop after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = campaign(Path(folder), chosen.cases, chosen.seconds, chosen.seed, chosen.only)
    print(report)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
