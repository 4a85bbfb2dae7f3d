"""The miniature's trainings: the loop resumes bit for bit, and the losses reach every parameter."""

import itertools
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from scenes import make_scene
from torch import nn
from torch.nn import functional as F
from transformers import AutoTokenizer

from dualproc_cli import miniature
from dualproc_cli.errors import UserError
from dualproc_cli.miniature import reader_folder
from dualproc_cli.miniature.training import adversarial, attacks, loop, packing, reader, vlm, vlm_model
from dualproc_cli.miniature.training.attack_goals import ATTACKED_KINDS, OPEN_ANSWERS, sample_goal
from dualproc_cli.miniature.training.blends import Blends
from dualproc_cli.miniature.training.color_attack import (
    COLOR_OF,
    PAIRS,
    POOL,
    ColorAttack,
    ColorHeads,
    ask,
    margin,
    recolor,
)
from dualproc_cli.miniature.training.corruptions import corrupt
from dualproc_cli.miniature.training.loop import Chunks, Task, Training
from dualproc_cli.miniature.training.miscolor import miscolor
from dualproc_cli.miniature.training.pictures import TrainingPictures
from dualproc_cli.miniature.world.language import WORDINGS
from dualproc_cli.miniature.world.overlays import sample_overlays
from dualproc_cli.miniature.world.questions import ARTEFACTS, MAX_LOG_ODDS, palette_margin
from dualproc_cli.miniature.world.reader import load_reader, read
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import NOBODY, SUBJECTS, sample_scenes


@pytest.fixture(autouse=True)
def uncompiled():
    """Compiling takes longer than all the steps here."""
    with torch.compiler.set_stance("force_eager"):
        yield


class Small(nn.Module):
    """A matrix that Muon moves, and biases that AdamW moves."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.out = nn.Linear(6, 8), nn.Linear(8, 1)


def small_task(at_step=lambda step: None, samples=24):
    modules = Small()

    def loss(rng, batch_size, step):
        at_step(step)
        x = torch.randn(batch_size, 6, generator=rng)
        found = modules.out(torch.tanh(modules.hidden(x)))
        return {"fit": F.mse_loss(found, x.sum(1, keepdim=True)), "small": 1e-3 * found.square().mean()}

    def hidden(name, parameter):
        return name == "hidden.weight"

    return Task("small", modules, loss, samples, batch_size=4, learning_rate=0.1, moved_by_muon=hidden)


def state(training):
    """Return everything that a resumed training must share with one that never stopped."""
    moments = [
        value
        for optimizer in training.optimizers
        for _, state in sorted(optimizer.state_dict()["state"].items())
        for _, value in sorted(state.items())
    ]
    return [*training.parameters, *training.average, *moments, training.rng.get_state()]


def interrupt_at(wanted, number=signal.SIGTERM):
    def at_step(step):
        if step == wanted:
            os.kill(os.getpid(), number)

    return at_step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_training_resumes_bit_for_bit(tmp_path, number):
    straight = Training(small_task(), tmp_path / "straight", seed=3)
    straight.run()
    assert len(straight.optimizers) == 2, "AdamW and Muon"
    handler = signal.getsignal(number)
    first = Training(small_task(interrupt_at(2, number)), tmp_path / "parts", seed=3)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert first.step == 3, "the step in hand is finished"
    assert signal.getsignal(number) is handler

    second = Training(small_task(), tmp_path / "parts", seed=9)
    second.resume()
    assert (second.step, second.seed) == (3, 3)
    for resumed, stopped in zip(state(second), state(first), strict=True):
        assert torch.equal(resumed, stopped)
    second.run()
    assert (second.step, second.samples_seen) == (6, 24)
    for resumed, uninterrupted in zip(state(second), state(straight), strict=True):
        assert torch.equal(resumed, uninterrupted)


def test_training_learns_and_its_average_follows(tmp_path):
    training = Training(small_task(samples=4 * 300), tmp_path, seed=0)
    before = training.task.loss(torch.Generator().manual_seed(1), 256, 0)["fit"]
    training.run()
    last = [p.detach().clone() for p in training.parameters]
    training.use_average()
    after = training.task.loss(torch.Generator().manual_seed(1), 256, 0)["fit"]
    assert after < 0.3 * before
    assert not any(torch.equal(p, q) for p, q in zip(training.parameters, last, strict=True))


@pytest.mark.parametrize(("first", "later", "steps"), [(1.2, 0.006, 300), (1.2, 1.2, 200), (0.6, 1.8, 200)])
def test_a_training_takes_the_steps_that_it_has_time_for(tmp_path, monkeypatch, first, later, steps):
    clock = itertools.accumulate(
        itertools.chain([0.0], itertools.chain.from_iterable([first, 0.0] for _ in range(100)),
                        itertools.cycle([later, 0.0]))
    )  # fmt: skip
    # Read before and after each step, in seconds.
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    training = Training(small_task(samples=4 * 300), tmp_path, seed=0)
    training.limit = 4.01
    training.run()
    assert training.step == steps


def test_nothing_to_resume(tmp_path):
    training = Training(small_task(), tmp_path, seed=3)
    training.resume()
    assert training.step == 0


def test_a_failed_save_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    training = Training(small_task(), tmp_path, seed=3)
    training.run()
    whole = training.checkpoint.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Exception, match="No space left"):
        training.save()
    assert training.checkpoint.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [training.checkpoint]


@pytest.fixture
def small_chunks(monkeypatch):
    for module in (vlm, reader):
        monkeypatch.setattr(module, "CHUNK", 16)
        monkeypatch.setattr(module, "PART", 16)


@pytest.mark.parametrize("module", [vlm, reader])
def test_one_step_reaches_every_parameter(module, tmp_path, small_chunks):
    torch.manual_seed(0)
    training = Training(module.task(40, tmp_path, 0), tmp_path, seed=0)
    task = training.task
    terms = task.loss(torch.Generator().manual_seed(0), 4, 0)
    loss = torch.stack(list(terms.values())).sum()
    assert loss.isfinite()
    loss.backward()
    unreached = [name for name, p in task.modules.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []
    before = [p.detach().clone() for p in training.parameters]
    for optimizer in training.optimizers:
        optimizer.step()
    assert all(p.isfinite().all() for p in training.parameters)
    assert not any(torch.equal(p, q) for p, q in zip(training.parameters, before, strict=True))


def test_answers_follow_their_questions():
    """Each question's labels are where a causal language model predicts them, after its own words only."""
    packer = packing.Packer()
    open_answer = [*packer.token_ids("a ball and a house"), packer.eos]
    answers = torch.full((1, 3, packing.ANSWER_LENGTH), packing.IGNORE)
    answers[0, 2, : len(open_answer)] = torch.tensor(open_answer)
    texts = [wording.text for wording in WORDINGS]
    asked = ["Is it night?", "Is the horizon at the red line?", "What is in the picture?"]
    wording = torch.tensor([[texts.index(text) for text in asked]])
    batch = packing.QuestionBatch(wording, torch.tensor([[2.0, -1.0, float("nan")]]), answers)
    tokens, labels, soft = packer.pack(batch)
    wanted = [[packer.yes, packer.eos], [packer.no, packer.eos], open_answer]
    for row, (text, answer) in enumerate(zip(asked, wanted, strict=True)):
        question = packer.token_ids(f"{text}<assistant>")
        inputs = [*question, *answer[:-1]]
        assert tokens[0, row, : len(inputs)].tolist() == inputs
        at = labels[0, row] != packing.IGNORE
        assert labels[0, row, at].tolist() == answer
        assert at.nonzero()[0].item() == len(question) - 1
    assert soft.sum(-1).tolist() == [[1, 1, 0]]


def test_questions_of_one_row_do_not_see_each_other():
    """Questions packed after one picture are answered as if each were asked alone."""
    torch.manual_seed(0)
    networks = vlm.VlmNetworks().eval()
    pictures = torch.randn(2, vlm.IMAGE_TOKENS, vlm.WIDTH)
    suffixes = networks.packer.questions[torch.tensor([[0, 5, 9], [20, 3, 50]])]
    with torch.no_grad():
        together = networks.hidden_states(pictures, suffixes)
        turned = networks.hidden_states(pictures, suffixes.flip(1)).flip(1)
    for row in range(2):
        for column in range(3):
            length = networks.packer.question_lengths[[[0, 5, 9], [20, 3, 50]][row][column]]
            assert torch.allclose(together[row, column, :length], turned[row, column, :length], atol=1e-5)


def test_renders_stand_in_for_an_autoencoder_that_is_not_trained(tmp_path):
    images, scene, rendering, artefacts = TrainingPictures(tmp_path, generated=0.0).sample(
        9, torch.Generator().manual_seed(0)
    )
    assert images.shape == (9, 3, 64, 64)
    assert len(scene) == 9
    assert (images - rendering.images).abs().mean() < 0.05
    changed = (images - rendering.images).square().mean((1, 2, 3)).sqrt()
    assert (artefacts <= changed + 1e-6).all()
    assert (artefacts[changed == 0] == 0).all()


def test_chunks_come_from_their_numbers():
    made = []

    def make(rng):
        made.append(torch.rand(2, generator=rng))
        return made[-1]

    chunks = Chunks(make, seed=5, samples=100)
    first, again, second = chunks.at(0), chunks.at(99), chunks.at(100)
    assert first is again
    assert not torch.equal(first, second)
    assert len(made) == 2
    assert torch.equal(Chunks(make, seed=5, samples=100).at(150), second), "a resumed training has the same"
    assert not torch.equal(Chunks(make, seed=6, samples=100).at(150), second)


# Adversarial training


def test_reader_labels_what_is_there_and_how_sound_it_is():
    rng = torch.Generator().manual_seed(2)
    scene = sample_scenes(5, rng, pairs=0.0)
    nobody = replace(scene, kind=torch.full_like(scene.kind, NOBODY))
    whole, empty = render(scene).images, render(nobody).images
    fading = torch.lerp(empty, whole, 0.5)
    corrupted = (whole + 0.4 * torch.randn(whole.shape, generator=rng)).clamp(0, 1)
    images = torch.cat([whole, fading, empty, corrupted])
    labelled = adversarial.label(images, read(load_reader(reader_folder()), images))
    shares = [float(part.mean()) for part in labelled.first_share.split(5)]
    assert shares[0] > 0.85
    assert 0.3 < shares[1] < 0.7
    assert shares[2] < 0.2
    assert (labelled.max_log_odds[:5] == MAX_LOG_ODDS).sum() >= 4
    assert (labelled.max_log_odds[15:] < 0).all()
    clean = labelled.margins(sample_overlays(labelled.first, labelled.first_rendering, rng))["clean"]
    assert (clean.yes[:5] > 4).sum() >= 4
    assert (clean.no[15:] > 2).all(), "not capped"


def test_prompts_of_an_attack_speak_of_its_subject():
    rng = torch.Generator().manual_seed(0)
    for _ in range(12):
        goal = sample_goal(4, rng)
        assert len(goal.overlays.kind) == 4
        wording, answer = goal.answers[0]
        kind, *subjects = WORDINGS[wording].kind.split()
        assert kind in ATTACKED_KINDS
        assert answer in OPEN_ANSWERS.get(kind, ("yes",))
        last, said = goal.answers[-1]
        if WORDINGS[last].kind == "clean":
            assert said == ("yes" if WORDINGS[last].sign > 0 else "no")
        else:
            assert set(goal.answers) == {goal.answers[0]}
        assert subjects == ([] if goal.subject == NOBODY else [SUBJECTS[goal.subject]])
        prompts = goal.sample_prompts(4, rng)
        assert len(prompts) == 4
        if subjects:
            assert all(prompt.startswith(f"a {subjects[0]}") for prompt in prompts)


@pytest.fixture
def trained(tmp_path):
    """A training's folder with the shipped networks."""
    for part in ("generator", "vlm", "reader"):
        (tmp_path / part).symlink_to(miniature.WEIGHTS / part)
    return tmp_path


def test_adversarial_training_starts_from_the_vlm_and_moves_it(small_chunks, monkeypatch, trained):
    for name, value in {"STEPS": (2,), "KEPT": 2, "ATTACK_BATCH": 4}.items():
        monkeypatch.setattr(attacks, name, value)
    with pytest.raises(UserError, match="no attacks"):
        adversarial.task(8, trained, 0)
    with pytest.raises(
        UserError, match="--about colors: expected kinds of question, out of horizon, palette"
    ):
        attacks.attack(trained, 0, 1, ["colors"])
    attacks.attack(trained, 0, 1)
    monkeypatch.setattr(attacks, "STEERED", 1.0)
    attacks.attack(trained, 1, 1, ["time"])  # by steering
    assert [
        len(attacks.AttackPictures.load(trained / "attacks" / f"{seed}-0.safetensors").images)
        for seed in (0, 1)
    ] == [8, 8]
    task = adversarial.task(8, trained, 0)
    terms = task.loss(torch.Generator().manual_seed(0), 4, 0)
    torch.stack(list(terms.values())).sum().backward()
    networks = task.modules
    unreached = [name for name, p in networks.named_parameters() if p.requires_grad and p.grad is None]
    assert unreached == []


def test_an_attack_moves_colors_along_a_gradient_and_knows_how_far_they_are_from_the_palette():
    rng = torch.Generator().manual_seed(0)
    attack, rows = ColorAttack(rng), torch.arange(8)
    before = {name: value.clone() for name, value in attack.named_buffers()}
    logits, spots = attack.logits[rows].requires_grad_(True), attack.spots[rows].requires_grad_(True)
    shown = attack.draw(rows, logits, spots)
    alone = shown.scene.kind[:, 1] == NOBODY
    assert alone.any()
    assert torch.allclose(shown.images[alone], render(shown.scene).images[alone], atol=1e-6), (
        "no spots at first"
    )
    up = torch.autograd.grad(shown.images.mean(), (logits, spots))
    attack.move(rows, *up, rng)
    kept = (attack.uniforms[rows] == before["uniforms"][rows]).all(1)
    assert kept.sum() >= 6, "few are renewed"
    along = torch.cosine_similarity((attack.logits - before["logits"])[rows], up[0], dim=2)  # each color
    visible = up[0].abs().amax(2) > 0
    assert (along[kept][visible[kept]] > 0.9).all()
    moves = (attack.spots[rows] != 0).flatten(1).any(1)
    assert torch.equal(moves[kept], attack.stained[rows].bool()[kept])
    assert torch.equal(attack.logits[8:], before["logits"][8:])


def test_small_subjects_are_attacked_more_often_than_the_world_has_them():
    rng = torch.Generator().manual_seed(0)
    attack, scene = ColorAttack(rng), sample_scenes(1024, rng, PAIRS)
    found = attack.draw(torch.arange(POOL), attack.logits, attack.spots)
    usual = recolor(scene, scene.colors[:, COLOR_OF], scene.colors)

    def lamps(shown):
        return (shown.scene.kind[:, 0] == SUBJECTS.index("lamp")) & shown.seen[:, 2]

    for often in (lambda shown: shown.seen[:, 3], lamps):
        assert often(found).float().mean() > 1.3 * often(usual).float().mean() > 0


def test_of_a_recolored_scene_only_what_is_seen_counts():
    rng = torch.Generator().manual_seed(1)
    attack, rows = ColorAttack(rng), torch.arange(8)
    attack.logits[rows] = attack.palettes[rows][:, COLOR_OF].clamp(0.02, 0.98).logit()
    shown = attack.draw(rows, attack.logits[rows], attack.spots[rows])
    assert (margin(shown) > 3).all()
    shown.images[:, :, :20, :20] = 1 - shown.images[:, :, :20, :20]
    assert (margin(shown) < 0).all(), "spots count"
    tree = replace(shown.scene, kind=torch.tensor([[SUBJECTS.index("tree"), NOBODY]] * 8))
    palettes = torch.stack([*tree.colors.unbind(1)[:2], 1 - tree.colors[:, 2]], 1)
    for on, matches in ((True, True), (False, False)):
        tree = replace(tree, on=torch.tensor([[on, False]] * 8))
        assert ((margin(recolor(tree, tree.colors[:, COLOR_OF], palettes)) > 3) == matches).all(), (
            "it is bare"
        )


def test_each_of_two_subjects_has_a_color():
    scene = make_scene("ball", far="house")
    colors = scene.colors[:, COLOR_OF].clone()
    same = recolor(scene, colors, scene.colors)
    assert torch.allclose(same.images, render(scene).images, atol=1e-6)
    assert same.seen.all()
    assert (margin(same) > 3).all()
    for part in (2, 3):
        other = colors.clone()
        other[:, part] = 1 - other[:, part]
        shown = recolor(scene, other, scene.colors)
        assert (margin(shown) < 0).all()
        changed = (shown.images - same.images).abs().amax(1) > 0.02
        assert changed.any()
        assert not changed[render(scene).subject[:, part - 2] == 0].any(), "where the other subject is, too"


@torch.no_grad()
def test_heads_compare_each_color_that_is_seen():
    heads, tokens = ColorHeads(), torch.zeros(1, vlm_model.IMAGE_TOKENS, vlm_model.WIDTH)
    heads.differences.bias.zero_()  # they say that every color matches
    heads.margins.bias.fill_(palette_margin(torch.tensor(0.0)))
    pair, alone, bare = make_scene("house", "ball"), make_scene("house"), make_scene("tree", on=(True, False))
    for part in range(4):
        for scene, is_seen in ((pair, True), (alone, part != 3), (bare, part < 2)):
            other = scene.colors[:, COLOR_OF].clone()
            assert heads.loss(tokens, recolor(scene, other, scene.colors)) == 0
            other[:, part] = 1 - other[:, part]
            assert (heads.loss(tokens, recolor(scene, other, scene.colors)) > 0.1) == is_seen


@pytest.mark.parametrize(("kind", "words"), [("night", "at night"), ("two", "in front of")])
def test_no_prompt_of_an_attack_states_its_answer(kind, words):
    rng = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(8):
        goal = sample_goal(4, rng, [kind])
        is_wanted = WORDINGS[goal.answers[0][0]].sign > 0
        seen.add(is_wanted)
        assert {words in prompt for prompt in goal.sample_prompts(12, rng)} == {not is_wanted}
    assert seen == {True, False}


def test_an_open_answer_is_not_stated_either():
    rng = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(8):
        goal = sample_goal(4, rng, ["time"])
        answer = goal.answers[0][1]
        seen.add(answer)
        assert {"night" in prompt for prompt in goal.sample_prompts(12, rng)} == {answer == "day"}
    assert seen == {"night", "day"}


def test_attacks_can_be_about_one_kind_of_question():
    rng = torch.Generator().manual_seed(0)
    asked = [str(sample_goal(2, rng, ["palette"])) for _ in range(4)]
    assert all("colors" in goal or "palette" in goal for goal in asked), asked


def test_attacks_ask_for_the_palette_in_every_wording():
    packer = packing.Packer()
    batch = ask(torch.linspace(-3, 3, 32), packer, torch.Generator().manual_seed(0))
    asked = {WORDINGS[index].text for index in batch.wording.flatten().tolist()}
    assert asked == {wording.text for wording in WORDINGS if wording.kind == "palette"}
    assert torch.equal(batch.margin, packer.signs[batch.wording] * torch.linspace(-3, 3, 32)[:, None])


def test_a_vlm_of_another_vocabulary_keeps_what_it_knows(trained, monkeypatch):
    """Words that are new get fresh embeddings; all else is as it was exported."""
    shipped = load_file(trained / "vlm" / "model.safetensors")
    known = AutoTokenizer.from_pretrained(trained / "vlm").get_vocab()
    build = vlm_model.build_tokenizer
    monkeypatch.setattr(vlm_model, "ANSWERS", ["aardvark", *vlm_model.ANSWERS])  # first: the others move
    networks = vlm.load_networks(trained)
    monkeypatch.undo()
    vocabulary, own = networks.packer.tokenizer.get_vocab(), networks.vlm.state_dict()
    assert "aardvark" in vocabulary.keys() - build().get_vocab().keys()
    for name, value in shipped.items():
        if "embed_tokens" not in name:
            assert torch.equal(own[name], value.float())
    rows = own["model.text_model.embed_tokens.weight"]
    assert torch.equal(rows, own["lm_head.weight"])
    before = next(value for name, value in shipped.items() if "embed_tokens" in name).float()
    for word in ("<image>", "horizon", "yes"):
        assert torch.equal(rows[vocabulary[word]], before[known[word]])


# Corruptions


def test_corruptions_are_of_many_kinds_and_know_how_much_they_changed():
    rng = torch.Generator().manual_seed(0)
    images = render(sample_scenes(200, rng)).images
    corrupted, change = corrupt(images, rng)
    assert corrupted.min() >= 0
    assert corrupted.max() <= 1
    assert torch.equal(change, (corrupted - images).square().mean((1, 2, 3)).sqrt())
    assert 0.5 < (change > ARTEFACTS).float().mean() < 0.9, "most are visible, some hardly"
    assert torch.equal(
        corrupt(images, torch.Generator().manual_seed(1))[0],
        corrupt(images, torch.Generator().manual_seed(1))[0],
    )


def test_a_part_in_a_wrong_color_is_the_less_clean_the_more_it_is_wrong():
    rng = torch.Generator().manual_seed(0)
    scene = sample_scenes(64, rng)
    rendering = render(scene)
    images, change = miscolor(rendering.images, scene, rendering, rng)
    moved = (images - rendering.images).abs().amax(1)  # [B, H, W]
    assert torch.allclose(change, (images - rendering.images).square().mean((1, 2, 3)).sqrt())
    assert (moved > 0.02).flatten(1).any(1).float().mean() > 0.8
    # Sky and ground stay as they are, but for where a lamp would shine or a tree have its crown.
    bare = 1 - rendering.subject.sum(1) - rendering.lights - rendering.ink
    elsewhere = ((scene.kind == SUBJECTS.index("lamp")) | (scene.kind == SUBJECTS.index("tree"))).any(1)
    assert not (moved * (bare > 0.999))[~elsewhere].any()
    spoiled = Blends.from_one_scene(rendering.images, scene, rendering, torch.zeros(64)).miscolored(rng)
    assert torch.equal(spoiled.max_log_odds, torch.full((64,), MAX_LOG_ODDS)), "what it shows is as before"
    assert (spoiled.artefacts > 0.02).float().mean() > 0.3


def test_what_the_generator_cannot_draw_counts_as_an_artefact(trained):
    rng = torch.Generator().manual_seed(0)
    (trained / "vae").mkdir(exist_ok=True)
    *_, artefacts = TrainingPictures(trained, generated=0.5).sample(16, rng, pairs=0.0)
    assert (artefacts[:8] > 0.01).all()
    assert artefacts[8:].median() < artefacts[:8].median(), "renders have none, but for the augmentation"
