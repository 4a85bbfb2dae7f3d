"""Running cases until their number or the time is reached, and counting what they found."""

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hostile.cases import CASES, Material
from hostile.watch import KINDS, Watch

SHOWN = 50  # findings in a report


@dataclass
class Report:
    """What a campaign found.

    Attributes:
        cases: how many cases of each kind were run.
        seconds: the wall time that they took.
        findings: a line for each finding, with the number of its case.
        counts: the findings by their kind.
    """

    cases: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} of {name}" for name, count in self.cases.items())
        found = ", ".join(f"{self.counts[kind]} {kind}" for kind in KINDS)
        total = f"{self.cases.total()} cases in {self.seconds:.0f} s ({kinds}): {found}"
        return "\n".join([*self.findings[:SHOWN], total])


def campaign(folder: Path, cases: int, seconds: float, seed: int = 0, only: int | None = None) -> Report:
    """Run ``cases`` cases, all kinds in turn, in folders below ``folder``, for ``seconds`` at most.

    A case depends on ``seed`` and its number alone; ``only`` runs the one of that number.
    """
    secret = folder / "secret.png"
    material = Material(folder / "material")
    shutil.copyfile(material.folder / "p.png", secret)
    os.environ["COLUMNS"] = "100"
    watch, report, started, home = Watch(secret), Report(), time.monotonic(), Path.cwd()
    for number in range(cases) if only is None else [only]:
        if time.monotonic() - started > seconds:
            break
        run = CASES[number % len(CASES)]
        place = folder / "case"
        place.mkdir()
        os.chdir(place)
        tempfile.tempdir = str(place)  # for the bundles that are unpacked
        try:
            with watch.case(place):
                run(material, watch, random.Random(f"{seed}-{number}"))
        finally:
            os.chdir(home)
            tempfile.tempdir = None
        report.cases[run.__name__] += 1
        for kind, what in watch.found:
            report.counts[kind] += 1
            report.findings.append(f"case {number} ({run.__name__}): {kind}: {what}"[:300])
        shutil.rmtree(place)
    report.seconds = time.monotonic() - started
    return report
