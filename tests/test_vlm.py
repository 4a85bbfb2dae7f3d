"""The VLM room: loading, tokens, and the shared prefix against one plain forward pass a question."""

import logging

import pytest
import small_vlm
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torchvision.transforms.functional import resize, to_pil_image, to_tensor
from transformers import DynamicCache, Idefics3Processor, PreTrainedTokenizerFast
from vlm_builders import FAMILIES
from vlm_parts import save

from dualproc_cli.errors import UserError
from dualproc_cli.spec import VlmSpec
from dualproc_cli.vlm import AnswerScorer, load_processor, load_vlm, modes, reduced, reduction
from dualproc_cli.vlm.chat import picture_inputs, plan_prompts
from dualproc_cli.vlm.modes import ForwardMode, PictureForward, choose_mode
from dualproc_cli.vlm.prefix import Rows, generated, plain

CPU = torch.device("cpu")
QUESTIONS = [
    "Is the horizon at the red line?",
    "What is shown?",
    "How many subjects are there in the picture?",
]
ANSWERS = [["Yes", "No"], ["a tall tree by the house", "a lamp"], ["two"]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(family):
        if family not in made:
            made[family] = save(FAMILIES[family].build(), tmp_path_factory.mktemp("vlm"))
        return made[family]

    return folder


@pytest.fixture
def vlm(vlm_folder):
    return load_vlm(VlmSpec(model=str(vlm_folder)), CPU)


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def forward(vlm):
    return PictureForward(vlm, plan_prompts(vlm.processor, QUESTIONS, ANSWERS, [(64, 64)]), beside=None)


def gradient(value, images):
    return torch.autograd.grad(value, images, retain_graph=True)[0]


def close(found, expected, tolerance=1e-5):
    """Assert equality within a tolerance relative to the largest expected value."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * expected.detach().abs().max().item())


def ask_by_hand(vlm, image, question, answer):
    """Return the log-likelihood of an answer, with the processor's and the model's own calls only."""
    content = [{"type": "image", "image": to_pil_image(image.detach())}, {"type": "text", "text": question}]
    prompt = vlm.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )["input_ids"]
    target = torch.tensor([vlm.processor.tokenizer.encode(answer, add_special_tokens=False)])
    pixels = vlm.processor.image_processor([[image]], do_rescale=False, return_tensors="pt")["pixel_values"]
    logits = vlm.model(input_ids=torch.cat([prompt, target], 1), pixel_values=pixels, use_cache=False).logits
    return -F.cross_entropy(logits[0, prompt.shape[1] - 1 : -1], target[0], reduction="sum")


def test_shared_prefix_equals_one_forward_a_question(vlm, images):
    scorer = AnswerScorer(vlm, QUESTIONS, ANSWERS)
    scores = scorer(images)
    assert str(scorer.prepare(64, 64)) == "cache"
    for q, (question, candidates) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        for a, answer in enumerate(candidates):
            by_hand = torch.stack([ask_by_hand(vlm, image, question, answer) for image in images])
            close(scores.log_likelihood[q][:, a], by_hand)
            close(gradient(scores.log_likelihood[q][:, a].sum(), images), gradient(by_hand.sum(), images))
            assert scores.tokens[q][a] == len(answer.split())
    assert all(score.dtype == torch.float32 for score in scores.log_likelihood)


def test_prefix_lm_shares_the_vision_tower_only(folders, images, caplog):
    vlm = load_vlm(VlmSpec(model=str(folders("PaliGemma"))), CPU)
    assert "no chat template" in caplog.text
    scorer = AnswerScorer(vlm, QUESTIONS, ANSWERS)
    scores = scorer(images)
    assert scorer.plan(64, 64).mode == "vision"
    assert "prefix-LM" in caplog.text
    expected = forward(vlm)(ForwardMode("definition", generated, batched=False), images)
    close(torch.cat([s.sum(1) for s in scores.log_likelihood]).sum(), expected.sum())
    close(gradient(sum(s.sum() for s in scores.log_likelihood), images), gradient(expected.sum(), images))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("family", "mode"), [("Idefics3", "cache"), ("Qwen2.5-VL", "cache"), ("PaliGemma", "vision")]
)
def test_self_check_tolerates_the_rounding_of_16_bits(family, mode, dtype, folders):
    vlm = load_vlm(VlmSpec(model=str(folders(family)), dtype=dtype), CPU)
    assert str(choose_mode(forward(vlm), 64, 64)) == mode


def test_asked_questions_come_in_their_order(vlm, images):
    scorer = AnswerScorer(vlm, QUESTIONS, ANSWERS)
    every, some = scorer(images), scorer(images, asked=[2, 0])
    close(some.log_likelihood[0], every.log_likelihood[2])
    close(some.log_likelihood[1], every.log_likelihood[0])
    assert [len(tokens) for tokens in some.tokens] == [1, 2]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_scores_without_a_graph(mode, vlm, images):
    expected = AnswerScorer(vlm, QUESTIONS, ANSWERS)(images).log_likelihood[0]
    with mode():
        found = AnswerScorer(vlm, QUESTIONS, ANSWERS)(images).log_likelihood[0]
    assert not found.requires_grad
    close(found, expected.detach())


def test_modes_are_not_compared_on_huge_pictures(vlm, monkeypatch):
    compared = []

    def choose(run, height, width):
        compared.append((height, width))
        return choose_mode(run, height, width)

    monkeypatch.setattr("dualproc_cli.vlm.answer_scorer.choose_mode", choose)
    scorer = AnswerScorer(vlm, QUESTIONS, ANSWERS)
    with torch.no_grad():
        scores = scorer(torch.rand(1, 3, 2048, 512))
    assert compared == [(1024, 256)]
    assert all(found.isfinite().all() for found in scores.log_likelihood)


def test_picture_beside(vlm, images):
    scorer = AnswerScorer(vlm, QUESTIONS, ANSWERS)
    dark, light = (scorer(images, beside=torch.full((3, 40, 50), value)) for value in (0.1, 0.9))
    assert scorer.plan(64, 64, torch.zeros(3, 40, 50)).mode == "cache"
    assert (dark.log_likelihood[0] - light.log_likelihood[0]).abs().max() > 0.01
    assert gradient(dark.log_likelihood[0].sum(), images).abs().sum() > 0


def reorder_with(monkeypatch, indices):
    reorder = DynamicCache.reorder_cache
    monkeypatch.setattr(DynamicCache, "reorder_cache", lambda cache, rows: reorder(cache, indices(rows)))


def test_wrong_batch_order_is_computed_picture_by_picture(vlm, images, monkeypatch, caplog):
    expected = AnswerScorer(vlm, QUESTIONS, ANSWERS)(images).log_likelihood
    reorder_with(monkeypatch, torch.zeros_like)
    scorer = AnswerScorer(vlm, QUESTIONS, ANSWERS)
    found = scorer(images).log_likelihood
    assert str(scorer.prepare(64, 64)) == "cache, picture by picture"
    assert "cache: differs from a plain forward" in caplog.text
    for one, other in zip(found, expected, strict=True):
        close(one, other)


def fade_the_past(monkeypatch, factor):
    update = DynamicCache.update

    def forgetful(cache, keys, values, layer, *args, **options):  # a second pass sees a faded past
        if cache.get_seq_length(layer):
            cache.layers[layer].keys = cache.layers[layer].keys * factor
        return update(cache, keys, values, layer, *args, **options)

    monkeypatch.setattr(DynamicCache, "update", forgetful)


def test_a_wrong_cache_is_not_used(vlm, images, monkeypatch, caplog):
    expected = AnswerScorer(vlm, QUESTIONS, ANSWERS)(images).log_likelihood
    fade_the_past(monkeypatch, 0.5)
    scorer = AnswerScorer(vlm, QUESTIONS, ANSWERS)
    found = scorer(images).log_likelihood
    assert str(scorer.prepare(64, 64)) == "separate"
    assert "cache: differs from a plain forward" in caplog.text
    for one, other in zip(found, expected, strict=True):
        close(one, other)
    # One-token answers need no cache once each question has its own pass; then the vision tower is shared.
    short = AnswerScorer(vlm, QUESTIONS, [["Yes"]] * len(QUESTIONS))
    assert str(short.prepare(64, 64)) == "vision"


def test_16_bits_are_measured_by_the_models_own_rounding(vlm_folder, monkeypatch, caplog):
    """What the plain forward is off from float32 says how much a mode may be off."""
    vlm = load_vlm(VlmSpec(model=str(vlm_folder), dtype="bfloat16"), CPU)
    assert str(choose_mode(forward(vlm), 64, 64)) == "cache"
    assert vlm.dtype == torch.bfloat16
    fade_the_past(monkeypatch, 0.9)  # off by 0.27 nats, where the model itself is off by 0.024
    assert str(choose_mode(forward(vlm), 64, 64)) != "cache"
    assert "cache: differs from a plain forward" in caplog.text
    monkeypatch.setattr(modes, "free_bytes", lambda device: 0)  # then only gross mistakes are found
    assert str(choose_mode(forward(vlm), 64, 64)) == "cache"


def test_template_with_the_picture_after_the_question(vlm, images, caplog):
    vlm.processor.chat_template = (
        "<user> {{ messages[0]['content'][-1]['text'] }} <image> "
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    run = forward(vlm)
    mode = choose_mode(run, 64, 64)
    assert str(mode) == "vision"
    assert "the picture comes after the question" in caplog.text
    shared, expected = run(mode, images), run(ForwardMode("definition", plain, batched=True), images)
    close(shared, expected)
    close(gradient(shared.mean(), images), gradient(expected.mean(), images))


def test_failing_vision_tower_falls_back(vlm, monkeypatch, caplog):
    monkeypatch.setattr(DynamicCache, "reorder_cache", lambda *args: {}["rows"])
    monkeypatch.setattr(type(vlm.model), "get_image_features", lambda *args, **options: {}["pixels"])
    assert str(choose_mode(forward(vlm), 64, 64)) == "separate"
    assert "cache: KeyError: 'rows'" in caplog.text
    assert "vision: KeyError: 'pixels'" in caplog.text


def test_a_processor_that_drops_the_graph_is_an_error(vlm, monkeypatch):
    def detached(*args):
        return {key: value.detach() for key, value in picture_inputs(*args).items()}

    monkeypatch.setattr(modes, "picture_inputs", detached)
    with pytest.raises(UserError, match=r"cannot learn from Idefics3\w+'s answers"):
        AnswerScorer(vlm, QUESTIONS, ANSWERS).prepare(64, 64)


def test_pictures_are_neither_stretched_nor_overshoot(vlm_folder):
    processor = load_processor(VlmSpec(model=str(vlm_folder))).processor
    gray = picture_inputs(processor, [[torch.full((3, 40, 40), 0.75)]], ["pixel_values"])["pixel_values"]
    torch.testing.assert_close(gray, torch.full_like(gray, 0.5))  # (0.75 - mean) / std, both 0.5
    steps = ((torch.arange(40) // 8) % 2).float().expand(3, 40, 40)
    pixels = picture_inputs(processor, [[steps]], ["pixel_values"])["pixel_values"]
    assert pixels.min() == -1
    assert pixels.max() == 1


@pytest.mark.parametrize(("height", "width", "expected"), [(1024, 1024, 1), (1536, 2304, 6), (2500, 1201, 4)])
def test_a_large_picture_is_reduced_without_a_difference_to_what_is_seen(height, width, expected, vlm):
    factor = reduction(vlm, height, width)
    assert factor == expected
    detail = torch.rand(3, height // 8, width // 8, generator=torch.Generator().manual_seed(0))
    picture = to_pil_image(resize(detail, [height, width]))
    whole, less = (
        picture_inputs(vlm.processor, [[255 * to_tensor(one)]], ("pixel_values",))["pixel_values"]
        for one in (picture, reduced(picture, factor))
    )
    assert whole.shape == less.shape
    assert (whole - less).abs().max() <= 0.01 * (whole.max() - whole.min())


def test_plan_needs_the_processor_alone(vlm, vlm_folder):
    planned = AnswerScorer(load_processor(VlmSpec(model=str(vlm_folder))), QUESTIONS, ANSWERS).plan(64, 64)
    assert planned == AnswerScorer(vlm, QUESTIONS, ANSWERS).plan(64, 64)
    answers = [[1, 1], [6, 2], [1]]
    asked = [len(question.replace("?", " ?").split()) for question in QUESTIONS]
    common = {q: tokens[0] - asked[q] - answers[q][0] for q, tokens in enumerate(planned.suffix_tokens)}
    assert len(set(common.values())) == 1  # what follows the question is the same for all
    assert planned.suffix_tokens[1][0] - planned.suffix_tokens[1][1] == 4


def test_candidates_share_the_row_that_leads_to_them():
    rows = Rows.after_prefix([(7, 8), (9,)], [[(1,), (2,)], [(3, 4)]], CPU)
    assert rows.tokens.tolist() == [[7, 8], [9, 3]]
    assert rows.kept.tolist() == [[False, True], [True, True]]
    assert rows.slots.tolist() == [1, 1, 2, 3]
    assert rows.targets.tolist() == [1, 2, 3, 4]
    alone = Rows.after_prefix([()], [[(1,), (2,)]], CPU)  # the prefix's last distribution predicts both
    assert len(alone.tokens) == 0
    assert alone.slots.tolist() == [0, 0]


def learned_tokenizer(spaces, decoder):
    """A small BPE tokenizer whose words carry the space before them, as those of real models do."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    core.pre_tokenizer, core.decoder = spaces, decoder
    texts = ["Assistant: Yes", "assistant\nYes", "User: Is it night?", "assistant\nNo", "Assistant: No"] * 20
    special = ["<unk>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    core.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=special, show_progress=False))
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", additional_special_tokens=special[1:]
    )


BYTES = (pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())
PIECES = (pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace(prepend_scheme="first"))
COLON = (
    "{% for m in messages %}{{ m['role'].capitalize() }}:"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %} {{ c['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
NEWLINE = (
    "{% for m in messages %}{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end_of_utterance>{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)


@pytest.mark.parametrize("pieces", [BYTES, PIECES], ids=["bytes", "sentencepiece"])
@pytest.mark.parametrize("template", [COLON, NEWLINE], ids=["colon", "newline"])
def test_answer_starts_as_the_model_would_start_it(pieces, template, vlm_folder):
    pictures = load_processor(VlmSpec(model=str(vlm_folder))).processor.image_processor
    words = learned_tokenizer(*pieces)
    processor = Idefics3Processor(pictures, words, image_seq_len=16, chat_template=template)
    prompts = plan_prompts(processor, ["Is it night?"], [["Yes", "No"]], [(64, 64)])
    tokens = prompts.tokens[0] + prompts.answers[0][0]
    trained_on = "Assistant: Yes" if template is COLON else "assistant\nYes"
    assert words.decode(tokens).endswith(trained_on)
    # Exactly the tokens that the tokenizer makes of such a dialogue as a whole.
    whole = words.encode("<end_of_utterance>" + trained_on, add_special_tokens=False)
    assert tuple(whole[1:]) == tokens[1 - len(whole) :]


def test_answers_that_the_model_cannot_tell_apart(vlm, caplog):
    with pytest.raises(UserError, match="has the same tokens for two of its answers: zebra, quagga"):
        AnswerScorer(vlm, ["What is shown?"], [["zebra", "quagga"]]).plan(64, 64)
    AnswerScorer(vlm, ["What is shown?"], [["a zebra"]]).plan(64, 64)
    assert "does not know all words of the answer 'a zebra'" in caplog.text


@pytest.fixture(scope="module")
def counting_folder(tmp_path_factory):
    """A VLM whose tokenizer has a token for each digit."""
    return small_vlm.make_vlm(tmp_path_factory.mktemp("counting"), digits=True)


@pytest.fixture
def counting_vlm(counting_folder):
    return load_vlm(VlmSpec(model=str(counting_folder)), CPU)


HOW_MANY = "How many subjects are there?"


def test_an_answer_that_begins_another_is_scored_with_its_end(counting_vlm, images):
    scores = AnswerScorer(counting_vlm, [HOW_MANY], [["1", "10", "2"]])(images)
    by_hand = torch.stack(
        [
            torch.stack([ask_by_hand(counting_vlm, image, HOW_MANY, f"{answer} <eos>") for image in images])
            for answer in ("1", "10", "2")
        ],
        1,
    )
    (log_likelihood,), (tokens,) = scores.log_likelihood, scores.tokens
    close(log_likelihood, by_hand)
    close(gradient(log_likelihood[:, 0].sum(), images), gradient(by_hand[:, 0].sum(), images))
    assert tokens.tolist() == [2, 3, 2]
    # The probability of the digit 1 is divided between the answers that begin with it.
    (first,) = AnswerScorer(counting_vlm, [HOW_MANY], [["1"]])(images).log_likelihood
    assert (log_likelihood[:, :2].exp().sum(1) < first[:, 0].exp()).all()


def test_answers_of_which_none_begins_another_are_scored_without_an_end(counting_vlm, images):
    candidates = [["1", "2"], ["10", "12"], ["1", "10"]]
    scores = AnswerScorer(counting_vlm, [HOW_MANY] * 3, candidates)(images)
    assert [tokens.tolist() for tokens in scores.tokens] == [[1, 1], [2, 2], [2, 3]]
    by_hand = torch.stack([ask_by_hand(counting_vlm, image, HOW_MANY, "12") for image in images])
    close(scores.log_likelihood[1][:, 1], by_hand)


def turns(end):
    """A chat template whose turns end with ``end``."""
    return (
        "{% for m in messages %}<{{ m['role'] }}>{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
        + end
        + "{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (turns("<end_of_utterance>"), "<end_of_utterance>"),
        (turns("<end_of_utterance>\n<bos>"), "<end_of_utterance>"),
        (turns(" "), "<eos>"),  # a space could be followed by more
        (turns(""), "<eos>"),
        (turns("###"), "<eos>"),  # no token of this tokenizer
        (turns("{{ messages[1]['content'][7].text.x if messages|length > 1 }}<bos>"), "<eos>"),
    ],
)
def test_the_end_of_a_turn_is_the_templates_or_the_tokenizers(template, end, counting_folder):
    processor = load_processor(VlmSpec(model=str(counting_folder))).processor
    processor.chat_template = template
    ((one, ten),) = plan_prompts(processor, [HOW_MANY], [["1", "10"]], [(64, 64)]).answers
    assert processor.tokenizer.convert_ids_to_tokens(one) == ["1", end]
    assert processor.tokenizer.convert_ids_to_tokens(ten) == ["1", "0", end]


def test_answers_that_begin_another_need_an_end_of_turn(counting_folder):
    vlm = load_processor(VlmSpec(model=str(counting_folder)))
    vlm.processor.chat_template, vlm.processor.tokenizer.eos_token = turns(""), None
    with pytest.raises(UserError, match=r"tokens of one answer begin another's \(1, 10\)") as error:
        AnswerScorer(vlm, [HOW_MANY], [["1", "10"]]).plan(64, 64)
    assert "\n" not in str(error.value)
    AnswerScorer(vlm, [HOW_MANY], [["1", "2"]]).plan(64, 64)


def test_template_that_takes_no_picture(vlm):
    vlm.processor.chat_template = "<user> {{ messages[0]['content'][-1]['text'] }} <assistant>"
    with pytest.raises(UserError, match=r"cannot ask it about 1 picture\(s\)") as error:
        AnswerScorer(vlm, QUESTIONS, ANSWERS).plan(64, 64)
    assert "\n" not in str(error.value)


@pytest.fixture(autouse=True)
def _warnings_are_recorded(caplog):
    caplog.set_level(logging.WARNING)
