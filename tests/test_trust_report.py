"""The trust report: a page that stands alone, whatever strangers wrote into it."""

import shutil
from collections import Counter
from html.parser import HTMLParser

import pytest
import torch
from evaluated import album, comparison, evaluated, figures, metrics

from dualproc_cli.evaluation import Album, verdict_of
from dualproc_cli.evaluation.comparison import Comparison, ProbeReport, Strength
from dualproc_cli.evaluation.strengths import best_strength
from dualproc_cli.report import report_page, write_report
from dualproc_cli.report.findings import findings
from dualproc_cli.report.plots import POINTS, losses_plot

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>alert(1)</script>",
    "</pre></title><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202ehidden\u2066",
    "\x1b[2J\x00",
)
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """A page's tags and attributes; tags must be closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self._open = Counter(), [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += [(tag, key, value) for key, value in attributes]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += [(tag, key, value) for key, value in attributes]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def values(self, *keys):
        return [value for _, key, value in self.attributes if key in keys]


@pytest.fixture(scope="module")
def text():
    return report_page([evaluated()])


def test_a_page_stands_alone(text):
    page = Page(text)
    assert POLICY in page.values("content")[0]
    assert not page.tags.keys() & {"script", "iframe", "object", "embed", "form", "base"}
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert all(value.startswith("data:image/webp;base64,") for value in page.values("src"))
    assert page.tags["img"] == 16
    assert all(value == "data:," or value.startswith("#") for value in page.values("href", "xlink:href"))
    assert "@import" not in text
    assert all(part.startswith(("#", "data:image/webp")) for part in text.split("url(")[1:])
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")


def test_ids_are_unique_and_references_lead_to_them(text):
    page = Page(text)
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    used = [value[1:] for value in page.values("href") if value.startswith("#")]
    used += [part.split(")")[0][1:] for part in text.split("url(")[1:] if part.startswith("#")]
    assert used
    assert set(used) <= set(ids)


def test_a_page_says_what_was_found(text):
    for words in (
        "85% right and clean, at least 80%",
        "a ball in the snow",
        "held out",
        "JPEG 75",
        "Is the horizon at the red line?",
        "learn.steps=60",
        "# Horizon position: the horizon goes where the red line is.",
        "generator miniature: Apache-2.0",
        "measured by the miniature&#39;s reader at 000000000000 (Apache-2.0)",
        "1.25, the best",
        "torch 2.15",
    ):
        assert words in text
    assert Page(text).tags["svg"] == 3


def test_equal_results_give_an_equal_page(text):
    assert report_page([evaluated()]) == text


@pytest.mark.parametrize("words", HOSTILE)
def test_what_strangers_wrote_is_text(text, words):
    one = evaluated()
    question = one.spec.questions[0].model_copy(update={"question": words, "answer": words})
    model = one.spec.generator.model_copy(update={"model": words})
    spec = one.spec.model_copy(
        update={"description": words, "name": words, "questions": (question,), "generator": model}
    )
    pictures = Album()
    for page in album().pages:
        pictures.add(words + page.prompt, page.held_out, page.base, page.learned)
    hostile = evaluated(words, spec=spec, text=words, overrides={words: words}, album=pictures)
    found = report_page([hostile])
    expected = Counter(Page(text).tags)
    assert Page(found).tags == expected
    assert not [key for _, key, _ in Page(found).attributes if key.startswith("on")]
    assert "\u202e" not in found
    assert "\x1b" not in found
    assert "\x00" not in found
    assert "<script" not in found


def test_several_controls_stand_side_by_side():
    other = evaluated("other", comparison=comparison(0.2), album=album(seed=0))
    found = report_page([evaluated("one"), other])
    page = Page(found)
    assert page.tags["img"] == 2 * 3 * 4  # the base is drawn once for both
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    assert "base of other" not in found
    assert "base of other" in report_page([evaluated("one"), evaluated("other", album=album(seed=1))])


def test_a_page_is_small_whatever_it_shows(tmp_path):
    noisy = Album()
    rng = torch.Generator().manual_seed(0)
    for index in range(5):
        noisy.add(f"prompt {index}", index > 2, *torch.rand((2, 4, 3, 512, 512), generator=rng))
    write_report([evaluated(album=noisy, metrics=metrics(steps=5000))], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_a_long_run_is_thinned():
    short, long = (losses_plot(metrics(steps=steps), "x") for steps in (POINTS, 20 * POINTS))
    assert len(long) < 1.5 * len(short)


def test_visual_prompts_lie_over_pictures_only_where_there_are_any(text):
    one = evaluated()
    question = one.spec.questions[0].model_copy(update={"visual_prompt": None})
    without = report_page([evaluated(spec=one.spec.model_copy(update={"questions": (question,)}))])
    assert ".layer0::after" in text
    assert 'id="overlays"' in text
    assert ".layer0::after" not in without
    assert 'id="overlays"' not in without


def test_findings_tell_what_gave_way():
    fooled = comparison(0.3)
    marks = {one.name: one.mark for one in findings(fooled, verdict_of(fooled))}
    assert marks["Right"] == marks["JPEG 75"] == "gives way"
    assert marks["Variety of the pixels"] == "holds"
    assert marks["Wordings never trained on"] == "not tried"
    good = comparison(0.9)
    assert {one.mark for one in findings(good, verdict_of(good))} == {"holds", "not tried"}
    nothing = Comparison(2, answered=figures(0, 0.1), probes={"shifted": ProbeReport(figures(0, 0), {})})
    assert {one.mark for one in findings(nothing, verdict_of(nothing))} == {"nothing to try", "not tried"}


def strength(scale, both, answer=0.5):
    return Strength(scale, both, 1.0, both, {"one": answer, "two": 0.9})


def test_the_best_strength():
    assert best_strength([strength(0.5, 0.9), strength(1.0, 0.8)]).scale == 0.5
    assert best_strength([strength(0.5, 0.9), strength(1.0, 0.9), strength(1.25, 0.9)]).scale == 1
    assert best_strength([strength(0.5, None, 0.3), strength(1.0, None, 0.2)]).scale == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_a_page_without_a_network(tmp_path, scheme):
    playwright = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium")
    write_report([evaluated()], tmp_path / "report.html")
    said, asked = [], []
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_context(
            offline=True, color_scheme=scheme, viewport={"width": 400, "height": 800}
        ).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "report.html").as_uri(), timeout=120_000)
        widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        chromium.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    assert widths == [64] * 16
