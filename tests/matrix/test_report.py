"""The matrix report: records merge, and the packaged table is that of the packaged records."""

import report

FLUX = {
    "kind": "generator",
    "name": "Flux",
    "checks": {"images": "passed"},
    "remedies": [],
    "reason": None,
}


def test_results_merge_check_by_check():
    again = {**FLUX, "checks": {"images": "failed: off", "gradients": "passed"}, "remedies": ["one"]}
    other = {**FLUX, "name": "Bria"}
    assert report.merge([FLUX], [again, other]) == [other, again]
    assert report.merge([again], [FLUX])[0]["checks"] == {"images": "passed", "gradients": "passed"}


def test_what_is_written_is_read_and_stays_the_same(tmp_path):
    path = tmp_path / "models" / "matrix.json"
    assert report.read(path) == []
    report.write(path, [FLUX])
    assert report.read(path) == [FLUX]
    first = path.read_bytes()
    report.write(path, report.read(path))
    assert path.read_bytes() == first
    assert (tmp_path / "models" / "MATRIX.md").read_text() == report.markdown([FLUX])


def test_the_table_names_what_failed_and_counts_what_passed():
    failed = {**FLUX, "name": "Odd", "checks": {"images": "failed: a | b"}, "reason": "it draws nothing"}
    table = report.markdown([FLUX, failed])
    assert "1 of 2 pass every check" in table
    assert "| Flux | ✓ |  |  |" in table
    assert r"| Odd | failed: a \| b |  | it draws nothing |" in table


def test_the_packaged_table_is_that_of_the_packaged_records():
    records = report.read(report.REPORT)
    assert report.table_path(report.REPORT).read_text(encoding="utf-8") == report.markdown(records)
