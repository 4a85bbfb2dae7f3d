"""The matrix report: records merge, and the packaged table is that of the packaged records."""

import report
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from every import FAMILIES
from exceptions import EXCEPTIONS, NOT_TRIED

FLUX = {
    "kind": "generator",
    "name": "Flux",
    "checks": {"images": "passed"},
    "workarounds": [],
    "reason": None,
}


def test_results_merge_check_by_check():
    again = {**FLUX, "checks": {"images": "failed: off", "gradients": "passed"}, "workarounds": ["one"]}
    other = {**FLUX, "name": "Bria"}
    assert report.merge([FLUX], [again, other]) == [other, again]
    assert report.merge([again], [FLUX])[0]["checks"] == {"images": "passed", "gradients": "passed"}


def test_a_note_stays_until_all_checks_run_again():
    noted = {**FLUX, "checks": {"images": "passed", "jump": "failed"}, "reason": "no jump"}
    assert report.merge([noted], [FLUX])[0]["reason"] == "no jump"
    assert report.merge([noted], [{**noted, "reason": None}])[0]["reason"] is None


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
    failed = {**FLUX, "name": "Odd", "checks": {"images": "failed: a | b"}, "reason": "so it is"}
    table = report.markdown([FLUX, failed])
    assert "1 of 2 pass every check" in table
    assert "| Flux | ✓ |  |  |" in table
    assert r"| Odd | failed: a \| b |  | so it is |" in table


def test_the_packaged_table_is_that_of_the_packaged_records():
    records = report.read(report.REPORT)
    assert report.table_path(report.REPORT).read_text(encoding="utf-8") == report.markdown(records)


def test_every_text_to_image_pipeline_is_in_the_matrix_or_has_a_reason_why_not():
    names = {
        pipeline.__name__.removesuffix("Pipeline") for pipeline in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()
    }
    from_a_prompt_alone = {name for name in names if "Control" not in name}
    assert from_a_prompt_alone - FAMILIES.keys() == NOT_TRIED.keys()


def test_what_is_packaged_is_whole():
    records = report.read(report.REPORT)
    generators = {record["name"] for record in records if record["kind"] == "generator"}
    assert generators == set(FAMILIES)
    failed = {
        (record["kind"], record["name"], check)
        for record in records
        if record["kind"] in ("generator", "scheduler")
        for check, result in record["checks"].items()
        if result != report.PASSED
    }
    assert failed == EXCEPTIONS.keys()
