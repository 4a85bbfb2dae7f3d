"""The matrix report: ``--matrix-report FILE.json`` merges the outcome of every recorded test into a file.
It goes with ``-n 0``: the file is written by the process that ran the tests.

A test is recorded where it carries ``@pytest.mark.recorded(KIND)`` and is parametrized with ``family``, the
record's name. The check is the test's own name without ``test_``. What else goes into the record, a test says
with pytest's ``record_property``: ``workarounds`` (a list of names), ``reason`` (a note, in one line).

``--matrix-dtype bfloat16`` loads the VLMs in 16 bits: which forward mode is chosen must stay the same, and
losses and gradients are compared as far as 16 bits go. It goes without ``--matrix-report``.

What cannot work is in `EXCEPTIONS` with its reason; it has to go on failing, or the test fails.
"""

from pathlib import Path

import pytest
import report
from exceptions import EXCEPTIONS
from report import Record

found = pytest.StashKey[dict[tuple[str, str], Record]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--matrix-dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the VLMs' weights",
    )
    parser.addoption("--matrix-report", type=Path, metavar="FILE.json", help="merge the results into FILE")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[found] = {}
    if config.getoption("--matrix-report", default=None) and config.getoption("numprocesses", default=0):
        raise pytest.UsageError("--matrix-report is written by the process that runs the tests: add -n 0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("recorded") and (known := EXCEPTIONS.get(_key(item))):
            item.add_marker(pytest.mark.xfail(reason=known.reason, raises=known.raises, strict=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    outcome = yield
    recorded = item.get_closest_marker("recorded")
    if recorded and (call.when == "call" or not outcome.passed):
        kind, name, check = key = _key(item)
        empty = {"kind": kind, "name": name, "checks": {}, "workarounds": [], "reason": None}
        record = item.config.stash[found].setdefault((kind, name), empty)
        record.update(item.user_properties)
        if hasattr(outcome, "wasxfail"):
            record["checks"][check], record["reason"] = report.FAILED, EXCEPTIONS[key].reason
        else:
            record["checks"][check] = report.PASSED if outcome.passed else _why(outcome, call)
    return outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--matrix-report", default=None)
    if path and session.config.stash[found]:
        records = list(session.config.stash[found].values())
        report.write(path, report.merge(report.read(path), records))


def _key(item: pytest.Item) -> tuple[str, str, str]:
    (kind,) = item.get_closest_marker("recorded").args
    check = item.originalname.removeprefix("test_").replace("_", " ")
    return kind, item.callspec.params["family"], check


def _why(outcome: pytest.TestReport, call: pytest.CallInfo) -> str:
    error = call.excinfo.value if call.excinfo else None
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"{outcome.outcome}: {reason[:200]}"
