"""What the miniature's VLM is asked: true answers, how often they are Yes, and the tokens it learns on."""

from collections import Counter

import pytest
import torch
from scenes import make_scene
from transformers import AutoProcessor

from dualproc_cli.miniature.training.packing import Packer
from dualproc_cli.miniature.training.vlm_model import build_processor, build_tokenizer
from dualproc_cli.miniature.world.language import OPEN_KINDS, WORDINGS, YES_NO_KINDS
from dualproc_cli.miniature.world.overlays import KINDS, Overlays, sample_overlays
from dualproc_cli.miniature.world.questions import (
    ARTEFACTS,
    MAX_LOG_ODDS,
    SOUND,
    SURE,
    clean,
    margins,
    open_answers,
    palette_distance,
    shows_subject_color,
)
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import (
    DAY,
    FAMILY_COLORS,
    NIGHT,
    SEA,
    WINTER,
    Scene,
    sample_scenes,
    with_random_colors,
)
from dualproc_cli.vlm.chat import picture_inputs, plan_prompts

LINE, UPRIGHT, PALETTE, POINTS, BOX = "horizontal", "vertical", "palette", "points", "box"


def overlay(
    kind="none", row=40.0, column=32.0, thickness=1.5, palette=FAMILY_COLORS[0], points=None, box=None
):
    """Return one visual prompt, in pixels; the defaults fit the scene of `make_scene`."""
    return Overlays(
        kind=torch.tensor([KINDS.index(kind)]),
        row=torch.tensor([row]),
        column=torch.tensor([column]),
        thickness=torch.tensor([thickness]),
        palette=palette[None],
        points=torch.tensor([points or [(32.0, 50.0), (5.0, 10.0)]]),
        box=torch.tensor([box or (15.0, 25.0, 50.0, 60.0)]),
    )


PAIR = {"near": "ball", "far": "house"}
ODD = torch.tensor([[0.2, 0.2, 0.9]])  # a third colour that is wrong where the others are right
FAR_AWAY = {"box": (2.0, 2.0, 20.0, 20.0)}


@pytest.mark.parametrize(
    ("kind", "scene", "laid_over", "yes"),
    [
        ("horizon", {}, {"kind": LINE}, True),
        ("horizon", {}, {"kind": LINE, "row": 41.5}, True),
        ("horizon", {}, {"kind": LINE, "row": 42.5}, False),
        ("horizon", {}, {"kind": LINE, "row": 34.0}, False),
        ("horizon-above", {}, {"kind": LINE, "row": 50.0}, True),
        ("horizon-above", {}, {"kind": LINE, "row": 30.0}, False),
        ("line-weight", {}, {"kind": LINE, "thickness": 1.8}, True),
        ("line-weight", {}, {"kind": LINE, "thickness": 2.2}, False),
        ("thicker", {}, {"kind": LINE, "thickness": 0.8}, True),
        ("thicker", {}, {"kind": LINE, "thickness": 2.5}, False),
        ("palette", {}, {"kind": PALETTE}, True),
        ("palette", {}, {"kind": PALETTE, "palette": FAMILY_COLORS[0] + 0.01}, True),
        ("palette", {}, {"kind": PALETTE, "palette": FAMILY_COLORS[1]}, False),
        ("palette", {}, {"kind": PALETTE, "palette": FAMILY_COLORS[0].flip(0)}, False),
        ("palette", {}, {"kind": PALETTE, "palette": torch.cat([FAMILY_COLORS[0, :2], ODD])}, False),
        ("closer", {}, {"kind": POINTS}, True),
        ("closer", {}, {"kind": POINTS, "points": [(5.0, 10.0), (32.0, 50.0)]}, False),
        ("closer", {}, {"kind": POINTS, "points": [(5.0, 60.0), (5.0, 45.0)]}, True),
        ("night", {"look": NIGHT}, {}, True),
        ("night", {"look": SEA}, {}, False),
        ("winter", {"look": WINTER}, {}, True),
        ("winter", {"look": DAY}, {}, False),
        ("sea", {"look": SEA}, {}, True),
        ("sea", {"look": DAY}, {}, False),
        ("two", PAIR, {}, True),
        ("two", {}, {}, False),
        ("clean", {}, {}, True),
        ("inside house", {}, {"kind": BOX}, True),
        ("inside house", {}, {"kind": BOX, "box": (22.0, 25.0, 50.0, 60.0)}, False),
        ("inside house", {}, {"kind": BOX, **FAR_AWAY}, False),
        ("inside house", PAIR, {"kind": BOX, "box": (5.0, 20.0, 40.0, 50.0)}, True),
        ("on-line house", {}, {"kind": UPRIGHT, "column": 35.0}, True),
        ("on-line house", {}, {"kind": UPRIGHT, "column": 37.0}, False),
        ("left house", {}, {"kind": UPRIGHT, "column": 40.0}, True),
        ("left house", {}, {"kind": UPRIGHT, "column": 24.0}, False),
        ("exists house", {}, {}, True),
        ("exists house", PAIR, {}, True),
        ("exists tree", PAIR, {}, False),
        ("attribute house", {"on": (True, False)}, {}, True),
        ("attribute house", {"on": (False, True)}, {}, False),
        ("attribute house", {**PAIR, "on": (False, True)}, {}, True),
        ("front ball house", PAIR, {}, True),
        ("front house ball", PAIR, {}, False),
    ],
)
def test_true_answer(kind, scene, laid_over, yes):
    scene = make_scene(**scene)
    margin = margins(scene, render(scene), overlay(**laid_over))[kind]
    assert (margin.yes.item() > 0) == yes
    assert margin.no.item() == -margin.yes.item()
    assert margin.weight.item() > 0, "it can be asked"


@pytest.mark.parametrize(
    ("kind", "laid_over"),
    [
        ("horizon", {"kind": UPRIGHT}),
        ("on-line house", {"kind": LINE}),
        ("palette", {"kind": LINE}),
        ("closer", {}),
        ("inside house", {"kind": PALETTE}),
        ("inside tree", {"kind": BOX}),
        ("attribute tree", {}),
        ("front house ball", {}),
    ],
)
def test_nothing_is_asked_about_what_is_not_there(kind, laid_over):
    scene = make_scene("house")
    assert margins(scene, render(scene), overlay(**laid_over))[kind].weight.item() == 0


def test_neither_a_kind_nor_its_opposite_is_true_of_a_missing_subject():
    scene = make_scene("house")
    found = margins(scene, render(scene), overlay(BOX))
    for kind in ("inside tree", "on-line tree", "left tree", "attribute tree"):
        assert found[kind].yes.item() < 0
        assert found[kind].no.item() < 0
    assert found["exists tree"].no.item() > 0


@pytest.mark.parametrize(
    ("scene", "shows"),
    [
        (make_scene("house", outline=2.6), True),
        (make_scene("lamp", outline=1.0, scale=(1.2, 0.7)), True),
        (make_scene("lamp", outline=2.6), False),
        (make_scene("tree", on=(True, False)), False),
        (make_scene("tree", "house", on=(True, False)), True),
    ],
)
def test_a_color_counts_where_it_takes_a_hundredth_of_the_picture(scene, shows):
    assert shows_subject_color(scene).item() == shows
    palette = scene.colors.clone()
    palette[:, 2] = 1 - palette[:, 2]
    assert (palette_distance(scene, palette).item() > 5) == shows


def test_a_picture_is_the_less_clean_the_more_it_is_spoiled():
    sound, base, worst_base, spoiled, gone = clean(torch.tensor([0.0, SOUND, 0.035, 0.05, 0.2])).yes.tolist()
    assert sound == base == pytest.approx(SURE)
    assert 0 < worst_base < SURE
    assert -MAX_LOG_ODDS <= gone < spoiled < 0
    assert clean(torch.tensor([ARTEFACTS])).yes.item() == pytest.approx(0, abs=0.01)


def test_open_answers():
    scenes = Scene.concatenate(
        [make_scene("ball", "house"), make_scene("tree", look=WINTER), make_scene(look=NIGHT)]
    )
    assert open_answers(scenes) == {
        "what": ["a ball and a house", "a tree", "a house"],
        "time": ["day", "day", "night"],
        "season": ["summer", "winter", "summer"],
        "count": ["two", "one", "one"],
    }


def test_wordings():
    assert max(Counter(wording.text for wording in WORDINGS).values()) == 1
    assert {wording.kind for wording in WORDINGS} == {*YES_NO_KINDS, *OPEN_KINDS}
    signs = {wording.text: wording.sign for wording in WORDINGS}
    for text, opposite in [
        ("Is the horizon above the red line?", "Is the horizon below the red line?"),
        ("Is point A closer than point B?", "Is point A farther than point B?"),
        ("Is the lamp lit?", "Is the lamp off?"),
        ("Is the picture clean?", "Does the picture have artefacts?"),
        ("Does the tree look right for winter?", "Does the tree look right for summer?"),
        ("Is the house in front of the tree?", "Is the house behind the tree?"),
    ]:
        assert signs[text] == -signs[opposite] == 1


def test_yes_and_no_are_about_equally_often_right():
    rng = torch.Generator().manual_seed(0)
    yes, asked = Counter(), Counter()
    for _ in range(8):
        scene = with_random_colors(sample_scenes(250, rng), 0.5, rng)
        rendering = render(scene)
        found = margins(scene, rendering, sample_overlays(scene, rendering, rng))
        assert found.keys() == set(YES_NO_KINDS)
        found.pop("clean")  # Yes about all pictures but spoiled ones
        for kind, (margin, _, weight) in found.items():
            assert margin.abs().max() <= MAX_LOG_ODDS
            about = kind.split()[0]  # all subjects together: each alone is asked about too seldom
            asked[about] += float(weight.sum())
            yes[about] += float(weight[margin > 0].sum())
    shares = {kind: yes[kind] / asked[kind] for kind in asked}
    assert {kind: share for kind, share in shares.items() if not 0.3 < share < 0.7} == {}


# Tokens


@pytest.fixture(scope="module")
def packer():
    return Packer()


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    """The processor as it is shipped: saved and loaded again."""
    folder = tmp_path_factory.mktemp("processor")
    build_processor(build_tokenizer()).save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder)


def test_questions_and_answers_are_known_words(packer):
    texts = [wording.text for wording in WORDINGS]
    texts += ["Yes", "No", *(f"a {a} and a {b}" for a in ("house", "tree") for b in ("ball", "lamp"))]
    unknown = packer.tokenizer.unk_token_id
    assert [text for text in texts if unknown in packer.token_ids(text)] == []


def test_processor_gives_the_tokens_that_the_vlm_is_trained_on(packer, processor):
    texts = [wording.text for wording in WORDINGS]
    prompts = plan_prompts(processor, texts, [["Yes", "No"]] * len(texts), [(64, 64)])
    for index, tokens in enumerate(prompts.tokens):
        asked = packer.questions[index, : packer.question_lengths[index]]
        assert list(tokens) == [*packer.prefix.tolist(), *asked.tolist()], texts[index]
    assert set(prompts.answers) == {((packer.yes,), (packer.no,))}
    assert prompts.shared >= len(packer.prefix)
    assert prompts.holds_pictures


def test_processor_gives_the_pixels_that_the_vlm_is_trained_on(processor):
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    inputs = picture_inputs(processor, [[image]], ["pixel_values", "pixel_attention_mask"])
    assert inputs["pixel_values"].shape == (1, 1, 3, 64, 64)
    # Up to the rounding of the way to [0, 255] and back.
    torch.testing.assert_close(inputs["pixel_values"][0, 0], (image - 0.5) / 0.5, rtol=0, atol=1e-6)
    assert inputs["pixel_attention_mask"].all()
