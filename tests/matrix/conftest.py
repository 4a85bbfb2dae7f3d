"""The matrix report: ``--matrix-report FILE.json`` merges the outcome of every recorded test into a file.

A test is recorded where it carries ``@pytest.mark.recorded(KIND)`` and is parametrized with ``family``, the
record's name. The check is the test's own name without ``test_``. What else goes into the record, a test says
with pytest's ``record_property``: ``remedies`` (a list of names), ``reason`` (why the family cannot work).
"""

from pathlib import Path

import pytest
import report
from report import Record

found = pytest.StashKey[dict[tuple[str, str], Record]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--matrix-report", type=Path, metavar="FILE.json", help="merge the results into FILE")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[found] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    outcome = yield
    recorded = item.get_closest_marker("recorded")
    if recorded and (call.when == "call" or not outcome.passed):
        (kind,), name = recorded.args, item.callspec.params["family"]
        empty = {"kind": kind, "name": name, "checks": {}, "remedies": [], "reason": None}
        record = item.config.stash[found].setdefault((kind, name), empty)
        check = item.originalname.removeprefix("test_").replace("_", " ")
        record["checks"][check] = report.PASSED if outcome.passed else _why(outcome, call)
        record.update(item.user_properties)
    return outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--matrix-report", default=None)
    if path and session.config.stash[found]:
        records = list(session.config.stash[found].values())
        report.write(path, report.merge(report.read(path), records))


def _why(outcome: pytest.TestReport, call: pytest.CallInfo) -> str:
    error = call.excinfo.value if call.excinfo else None
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"{outcome.outcome}: {reason[:200]}"
