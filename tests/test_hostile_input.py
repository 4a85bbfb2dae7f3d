"""The campaign of hostile and broken input (see `hostile`): a few hundred cases always, thousands in CI.

By hand, of any size: ``cd tests && python -m hostile --cases 10000 --seconds 900``.
"""

import pytest
from hostile.campaign import campaign

from dualproc_cli.learning.checkpoint import Checkpoint


def test_a_few_hundred_cases(tmp_path):
    report = campaign(tmp_path, cases=300, seconds=60)
    assert report.findings == []
    assert report.cases.total() == 300


@pytest.mark.campaign
def test_thousands_of_cases(tmp_path):
    report = campaign(tmp_path, cases=10_000, seconds=100, seed=1)
    print(report)
    assert report.findings == []
    assert report.cases.total() > 1000


def test_the_campaign_finds_what_it_looks_for(tmp_path, monkeypatch):
    def careless(path):
        (tmp_path / "elsewhere").write_text("")
        raise IndexError

    monkeypatch.setattr(Checkpoint, "read", careless)
    report = campaign(tmp_path, cases=7, seconds=60, only=6)
    assert dict(report.counts) == {"outside": 1, "traceback": 1}
