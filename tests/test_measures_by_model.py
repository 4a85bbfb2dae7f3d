"""The measures that load a model: on small checkpoints of the real classes, and what bad input gets."""

import copy
import weakref

import pytest
import small_judges
import torch
from huggingface_hub.errors import GatedRepoError
from small_judges import rewrite_config
from spec_files import SHORTEST, load_text
from torch.nn import functional as F
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForDepthEstimation,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
)
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.errors import UserError
from dualproc_cli.measures import Evidence, check_measures, judge_in_turn, measures_of, pretrained
from dualproc_cli.measures.boundary import boundary
from dualproc_cli.measures.depth_order import smallest_lead
from dualproc_cli.measures.detection import detect
from dualproc_cli.measures.placement import share_inside
from dualproc_cli.measures.pretrained import Pretrained, load_pretrained
from dualproc_cli.pictures import to_pil
from dualproc_cli.spec import SpecError

CPU = torch.device("cpu")
KINDS = ("clip", "siglip", "features", "segmenter", "depth", "owlv2", "grounding_dino")
PROMPTS = """\
  area: {type: box, left: 0.5, top: 0.0, right: 1.0, bottom: 1.0}
  post: {type: line, orientation: vertical, position: 0.5}
  depth: {type: points, points: [{label: A, x: 0.2, y: 0.5}, {label: B, x: 0.8, y: 0.5}]}
"""


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    """A folder for each of `KINDS`."""
    folder = tmp_path_factory.mktemp("judges")
    return {kind: getattr(small_judges, f"make_{kind}")(folder / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def images():
    """Pictures of 64 x 96 pixels whose values a file can hold."""
    return torch.randint(256, (3, 3, 64, 96), generator=torch.Generator().manual_seed(0)) / 255


def loaded(folder, *entries, text=SHORTEST):
    """Return a spec with measures and the visual prompts that they need."""
    text = text.replace("questions:", PROMPTS + "questions:", 1)
    return load_text(folder, f"{text}evaluate:\n  measures:\n" + "".join(f"    - {one}\n" for one in entries))


def judged(folder, entry, images, base=None, prompts=None):
    """Return what the measure finds in pictures, and the measure."""
    spec = loaded(folder, entry).spec
    (measure,) = measures_of(spec)
    (found,) = judge_in_turn([measure], lambda: [Evidence(images, spec, base, prompts)], CPU)
    return found[measure], measure


def faults(folder, *entries, **more):
    with pytest.raises(SpecError) as caught:
        check_measures(loaded(folder, *entries, **more))
    return str(caught.value).replace(f"{folder}/", "").splitlines()


# One model after the other


def test_each_model_is_loaded_once_and_freed_before_the_next(judges, tmp_path, images, monkeypatch):
    detector = f"model: {judges['owlv2']}"
    loads = []

    def load(needs, device):
        assert all(model() is None for _, model in loads), "the one before is still in memory"
        found = load_pretrained(needs, device)
        loads.append((needs.kind, weakref.ref(found.model)))
        return found

    monkeypatch.setattr(pretrained, "load_pretrained", load)
    spec = loaded(
        tmp_path,
        f"{{type: objects, name: house, {detector}, label: a house}}",
        f"{{type: distance, name: drift, model: {judges['features']}}}",
        "{type: statistic, name: grid, of: grid}",
        f"{{type: objects, name: trees, {detector}, label: a tree, count: 2}}",
    ).spec
    measures, calls = measures_of(spec), []
    first, second = judge_in_turn(
        measures, lambda: calls.append(1) or [Evidence(images, spec, images)] * 2, CPU
    )
    assert [kind for kind, _ in loads] == ["detector", "features"]
    assert len(calls) == 3, "pictures are made anew for each model"
    assert all(model() is None for _, model in loads)
    assert first.keys() == second.keys() == set(measures)
    assert torch.equal(first[measures[0]].value, second[measures[0]].value)
    with pytest.raises(RuntimeError, match="judge_in_turn"):
        measures[0].judge(Evidence(images, spec))


def test_a_model_is_freed_when_a_measure_fails(judges, tmp_path, images, monkeypatch):
    spec = loaded(tmp_path, f"{{type: distance, name: drift, model: {judges['features']}}}").spec
    (measure,) = measures_of(spec)
    released = []
    monkeypatch.setattr("dualproc_cli.device.release", released.append)
    monkeypatch.setattr(type(measure), "judge", lambda self, evidence: 1 / 0)
    with pytest.raises(UserError, match=r": cannot judge the pictures \(division by zero\); choose"):
        judge_in_turn([measure], lambda: [Evidence(images, spec)], CPU)
    assert released == [CPU]
    assert measure._loaded is None


def test_without_measures_nothing_is_found_in_each_picture(tmp_path, images):
    evidence = Evidence(images, loaded(tmp_path, "horizon").spec)
    assert judge_in_turn([], lambda: [evidence] * 2, CPU) == [{}, {}]


def test_a_report_names_the_model_and_its_licence(judges, tmp_path, images):
    entry = f"{{type: distance, name: drift, model: {judges['features']}}}"
    _, measure = judged(tmp_path, entry, images, images)
    assert (measure.model, measure.revision, measure.licence) == (str(judges["features"]), None, "apache-2.0")
    unnamed = tmp_path / "unnamed"
    judges["features"].rename(unnamed)
    try:
        (unnamed / "README.md").write_text("---\nlicense: other\nlicense_name: cc-by-nc\n---\n")
        assert load_pretrained(Pretrained("features", str(unnamed)), CPU).licence == "cc-by-nc"
        (unnamed / "README.md").write_text("---\nlicense: [\n---\n")
        assert load_pretrained(Pretrained("features", str(unnamed)), CPU).licence is None
    finally:
        unnamed.rename(judges["features"])
        (judges["features"] / "README.md").write_text(small_judges.CARD)


# Each measure does what its model's own forward does


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_similarity_and_preference_are_a_plain_forward(judges, tmp_path, images, kind):
    prompts = ["a house", "a tree by the sea", "a house"]
    model = AutoModelForZeroShotImageClassification.from_pretrained(judges[kind]).eval()
    processor = AutoProcessor.from_pretrained(judges[kind])
    pictures = [to_pil(image) for image in images]
    padded = {"padding": "max_length", "max_length": 40}
    inputs = processor(text=prompts, images=pictures, return_tensors="pt", **padded)
    with torch.no_grad():
        plain = model(**inputs)
    logits = plain.logits_per_image.diag()
    cosines = F.cosine_similarity(plain.image_embeds, plain.text_embeds)
    entry = f"name: n, model: {judges[kind]}"
    likeness, _ = judged(tmp_path, f"{{type: similarity, {entry}}}", images, prompts=prompts)
    assert torch.allclose(likeness.value, cosines, atol=1e-5)
    assert likeness.success is None
    liked, _ = judged(tmp_path, f"{{type: preference, {entry}}}", images, prompts=prompts)
    assert torch.allclose(liked.value, logits, atol=1e-4)
    if kind == "clip":
        assert torch.allclose(liked.value, model.logit_scale.exp() * cosines, atol=1e-4)
        short = processor(text=["a house"], images=pictures, padding=True, return_tensors="pt")
        with torch.no_grad():
            unpadded = model(**short)
        said, _ = judged(tmp_path, f"{{type: similarity, {entry}, to: a house, at_least: 0.1}}", images)
        expected = F.cosine_similarity(unpadded.image_embeds, unpadded.text_embeds)
        assert torch.allclose(said.value, expected, atol=1e-5)
        assert torch.equal(said.success, (said.value >= 0.1).float())


def test_preference_is_set_against_the_base(judges, tmp_path, images):
    entry = f"{{type: preference, name: liked, model: {judges['clip']}, worse_by: 0.0}}"
    prompts = ["a house"] * 3
    found, _ = judged(tmp_path, entry, images, images.roll(1, 0), prompts)
    assert torch.equal(found.success, (found.value >= found.value.roll(1, 0)).float())
    assert 0 < found.success.sum() < 3
    assert judged(tmp_path, entry, images, None, prompts)[0].success.isnan().all()
    unknown = judged(tmp_path, entry, images, images)[0]
    assert unknown.value.isnan().all()
    assert unknown.success.isnan().all()


def test_distance_of_features_is_a_plain_forward(judges, tmp_path, images):
    base = images.flip(-1)
    model = AutoModel.from_pretrained(judges["features"]).eval()
    processor = AutoImageProcessor.from_pretrained(judges["features"])
    own, other = (
        model(**processor([to_pil(image) for image in part], return_tensors="pt")).pooler_output
        for part in (images, base)
    )
    entry = f"{{type: distance, name: drift, model: {judges['features']}, at_most: 0.5}}"
    found, measure = judged(tmp_path, entry, images, base)
    assert torch.allclose(found.value, 1 - F.cosine_similarity(own, other), atol=1e-5)
    assert measure.unit == "1 - cosine to base"
    same, _ = judged(tmp_path, entry, images, images)
    assert torch.allclose(same.value, torch.zeros(3), atol=1e-6)
    assert same.success.tolist() == [1, 1, 1]


def test_a_relative_model_is_larger_nearer_and_a_metric_one_smaller(judges, tmp_path, images):
    model = AutoModelForDepthEstimation.from_pretrained(judges["depth"]).eval()
    processor = AutoImageProcessor.from_pretrained(judges["depth"])
    with torch.no_grad():
        output = model(**processor([to_pil(image) for image in images], return_tensors="pt"))
    depth = F.interpolate(output.predicted_depth[:, None], (64, 96), mode="bicubic")[:, 0]
    points = [(0.2, 0.5), (0.8, 0.5)]
    entry = "type: depth-order, name: nearer, points: depth, model: "
    found, _ = judged(tmp_path, f"{{{entry}{judges['depth']}}}", images)
    assert torch.allclose(found.value, smallest_lead(depth, points), atol=1e-4)
    turned, _ = judged(tmp_path, f"{{{entry}{judges['depth']}, order: [B, A]}}", images)
    assert torch.allclose(turned.value, -found.value, atol=1e-4)
    smaller, _ = judged(tmp_path, f"{{{entry}{judges['depth']}, nearer: smaller}}", images)
    assert torch.allclose(smaller.value, smallest_lead(1 / depth.clamp(min=1e-3), points), atol=1e-4)
    metric = small_judges.make_depth(tmp_path / "metric", kind="metric")
    auto, told = (
        judged(tmp_path, f"{{{entry}{metric}, nearer: {word}}}", images)[0] for word in ("auto", "smaller")
    )
    assert torch.equal(auto.value, told.value)


@pytest.mark.parametrize("kind", ["owlv2", "grounding_dino"])
def test_detectors_of_both_kinds_go_one_way(judges, tmp_path, images, kind):
    found = load_pretrained(Pretrained("detector", str(judges[kind])), CPU)
    loose, strict = (detect(found, images, "a house", threshold) for threshold in (0.3, 0.9999))
    assert [len(boxes) for boxes in loose] > [len(boxes) for boxes in strict]
    assert all((boxes[:, 2:] > boxes[:, :2]).all() for boxes in loose)
    entry = f"{{type: objects, name: n, model: {judges[kind]}, label: a house, count: {len(loose[0])}}}"
    counted, _ = judged(tmp_path, entry, images)
    assert counted.value.tolist() == [len(boxes) for boxes in loose]
    assert counted.success[0] == 1
    nothing, _ = judged(tmp_path, entry.replace("}", ", threshold: 0.9999}"), images)
    if kind == "grounding_dino":
        assert nothing.value.tolist() == [0, 0, 0]


def test_boxes_are_told_as_the_detector_places_them(judges, tmp_path):
    """A detector with made-up outputs: a house in the right half, seen twice, and a faint one on the left."""
    found = load_pretrained(Pretrained("detector", str(judges["owlv2"])), CPU)
    output = copy.copy(found(images=[to_pil(torch.zeros(3, 64, 128))], text=[["a house"]]))
    boxes = torch.tensor([[0.8, 0.2, 0.2, 0.2], [0.8, 0.21, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2]])
    output.pred_boxes = boxes[None]
    output.logits = torch.tensor([[[2.0], [1.0], [-3.0]]])
    made = pretrained.Loaded("made", None, None, lambda **inputs: output, found.processor, CPU)
    (boxes,) = detect(made, torch.zeros(1, 3, 64, 128), "a house", 0.3)
    # OWLv2 sees pictures padded to a square: half of its height is the picture's whole height.
    assert torch.allclose(boxes, torch.tensor([[0.7, 0.2, 0.9, 0.6]]), atol=1e-5)
    assert len(detect(made, torch.zeros(1, 3, 64, 128), "a house", 0.01)[0]) == 2


def test_share_inside_a_box():
    boxes = torch.tensor([[0.5, 0.0, 1.0, 1.0], [0.25, 0.0, 0.75, 0.5], [0.0, 0.0, 0.4, 0.4]])
    assert share_inside(boxes, torch.tensor([0.5, 0.0, 1.0, 1.0])).tolist() == pytest.approx([1, 0.5, 0])


@pytest.mark.parametrize("certain", [True, False])
def test_what_is_not_found_has_no_placement(judges, tmp_path, images, certain):
    threshold = 0.05 if certain else 0.9999
    entry = f"{{type: placement, name: in, model: {judges['grounding_dino']}, label: a house, target: area"
    found, _ = judged(tmp_path, f"{entry}, threshold: {threshold}}}", images)
    assert found.value.isnan().tolist() == found.success.isnan().tolist() == [not certain] * 3


def test_smallest_lead_is_a_share_of_the_range():
    ramp = torch.linspace(0, 1, 100).expand(1, 50, 100)
    flat = torch.ones(1, 50, 100)
    near = torch.cat([ramp, ramp.flip(-1), flat])
    points = [(0.9, 0.5), (0.5, 0.5), (0.2, 0.5)]
    lead = 0.3 / 0.96  # of the range between the 2nd and the 98th percentile
    found = smallest_lead(near, points)
    assert found[:2].tolist() == pytest.approx([lead, -0.4 / 0.96], abs=0.02)
    assert found[2].isnan()


def test_boundary_is_the_median_of_the_columns():
    sky = torch.zeros(4, 100, 40, dtype=torch.bool)
    sky[0, :60] = True
    sky[0, 30:, :15] = False  # a house before the sky
    sky[1] = True  # nothing but sky
    sky[2, :60, :5] = True  # in too few columns
    assert boundary(sky, "lower")[0] == pytest.approx(0.6)
    assert boundary(sky, "lower")[1:].isnan().all()
    assert boundary(sky.flip(1), "upper")[0] == pytest.approx(0.4)


def test_boundary_reads_the_label_of_the_model(judges, tmp_path, images, monkeypatch):
    entry = f"{{type: boundary, name: skyline, model: {judges['segmenter']}, label: sky, target: target}}"
    masks = []

    def found_at(mask, edge):
        masks.append(mask)
        return torch.full((3,), 0.67)

    monkeypatch.setattr("dualproc_cli.measures.boundary.boundary", found_at)
    found, _ = judged(tmp_path, entry, images)
    assert found.value.tolist() == pytest.approx([0.02] * 3, abs=1e-6)
    assert found.success.tolist() == [1, 1, 1]
    made = load_pretrained(Pretrained("segmenter", str(judges["segmenter"])), CPU)
    logits = made(images=[to_pil(image) for image in images]).logits
    plain = F.interpolate(logits, (64, 96), mode="bilinear", align_corners=False).argmax(1)
    assert torch.equal(masks[0], plain == 1)


# What bad input gets


def test_targets_and_models_that_cannot_be_used_have_their_line(judges, tmp_path):
    owl, depth, clip = judges["owlv2"], judges["depth"], judges["clip"]
    lines = faults(
        tmp_path,
        f"{{type: placement, name: a, model: {owl}, label: a house, target: depth}}",
        f"{{type: placement, name: b, model: {owl}, label: a house, target: aera}}",
        f"{{type: depth-order, name: c, model: {owl}, points: depth}}",
        f"{{type: depth-order, name: d, model: {depth}, points: depth, order: [A, C]}}",
        f"{{type: boundary, name: e, model: {judges['segmenter']}, label: sky, target: post}}",
        f"{{type: boundary, name: f, model: {judges['segmenter']}, label: grund, target: target}}",
        f"{{type: objects, name: g, model: {clip}, label: a house}}",
        "{type: similarity, name: h, model: ./none}",
        f"{{type: objects, name: i, model: {owl}, label: a house, questions: [at-the-lime]}}",
        "{type: line-weight, name: j, target: area}",
    )
    keys = ["0.target", "1.target", "2.model", "3.order", "4.target", "5.label", "6.model", "7.model"]
    keys += ["8.questions", "9.target"]
    for number, (line, key) in enumerate(zip(lines, keys, strict=True)):
        assert line.startswith(f"spec.yaml:{16 + number}:")
        assert f": evaluate.measures.{key}: " in line
    for line, said in zip(
        lines,
        (
            '"depth" is of type points (expected a visual prompt of type box: area)',
            "no visual prompt \"aera\"; did you mean 'area'?",
            "is a owlv2 model (expected a model that estimates depth, such as ",
            'no point "C" (expected some of A, B)',
            '"post" is a vertical line (expected a horizontal one)',
            "has no label \"grund\"; did you mean 'ground'? (expected one of wall, sky, ground)",
            "is a clip model (expected a model that detects what a text names, such as ",
            '"./none": no such folder (expected a model that compares pictures with texts',
            "no question \"at-the-lime\"; did you mean 'at-the-line'? (expected some of at-the-line)",
            '"area" is of type box (expected a visual prompt of type line: target, post)',
        ),
        strict=True,
    ):
        assert said in line


def test_check_does_not_call_a_spec_valid_whose_measures_are_not(tmp_path):
    loaded(tmp_path, "{type: line-weight, name: pen, target: area}")
    result = CliRunner().invoke(app, ["check", str(tmp_path / "spec.yaml")])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"{tmp_path}/spec.yaml:16:")


def test_a_head_of_another_kind_is_told(judges, tmp_path):
    entry = f"{{type: boundary, name: skyline, model: {judges['segmenter']}, label: sky, target: target}}"
    known = judges["segmenter"] / "config.json"
    before = known.read_text()
    try:
        rewrite_config(judges["segmenter"], architectures=["SegformerForImageClassification"])
        (line,) = faults(tmp_path, entry)
        assert "is a SegformerForImageClassification (expected a model of semantic segmentation" in line
        known.write_text("{}")
        assert "has no config.json that names a model" in faults(tmp_path, entry)[0]
    finally:
        known.write_text(before)


def test_a_model_that_is_not_to_be_had_is_told_before_anything_is_loaded(tmp_path, monkeypatch):
    entry = "{type: similarity, name: prompt, model: org/siglip}"
    monkeypatch.setattr("dualproc_cli.models.source.hub_reachable", lambda: False)
    (line,) = faults(tmp_path, entry)
    assert line.startswith("spec.yaml:16:47: evaluate.measures.0.model: ")
    assert "the hub cannot be reached and the local cache has no complete copy; connect, or name a f" in line

    def gated(*args, **options):
        raise OSError("wrapped") from GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", gated)
    assert "gated: accept its licence at https://huggingface.co/org/siglip" in faults(tmp_path, entry)[0]


def test_code_that_comes_with_a_model_never_runs(judges, tmp_path, images):
    """There is no key to allow it, and a configuration that names code of its own is of no known kind."""
    entry = f"{{type: distance, name: drift, model: {judges['features']}, trust_remote_code: true}}"
    with pytest.raises(SpecError, match="trust_remote_code: unknown key"):
        loaded(tmp_path, entry)
    before = (judges["features"] / "config.json").read_text()
    try:
        rewrite_config(judges["features"], model_type="mine", auto_map={"AutoModel": "code.Mine"})
        (judges["features"] / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        assert "is a mine model" in faults(tmp_path, entry.replace(", trust_remote_code: true", ""))[0]
        assert not (tmp_path / "ran").exists()
    finally:
        (judges["features"] / "config.json").write_text(before)
