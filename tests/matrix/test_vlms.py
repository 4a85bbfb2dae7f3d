"""Every family of VLMs, small, through the same load path: pictures, losses and gradients as by hand.

"By hand" is transformers alone: the model's own processor and one plain forward for each question and answer.
"""

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.functional import to_pil_image
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from vlm_builders import FAMILIES
from vlm_exceptions import EXCEPTIONS
from vlm_not_tried import NOT_TRIED
from vlm_parts import save

from dualproc_cli.errors import UserError
from dualproc_cli.spec import VlmSpec
from dualproc_cli.vlm import AnswerScorer, load_vlm
from dualproc_cli.vlm.chat import picture_inputs, plan_prompts

ALWAYS = ("SmolVLM", "Qwen3.5", "LLaVA-NeXT", "PaliGemma")  # a kind each: tiles, patches, rows, prefix-LM
QUESTIONS = ("Is the horizon at the red line?", "What is shown?")
ANSWERS = (("Yes", "No"), ("a tall tree", "a lamp"))
HEIGHT, WIDTH = 48, 64
ROUNDING_16_BIT = 0.1  # of losses and gradients, relative to the largest
MECHANISMS = {"cache": "shared prefix", "vision": "vision once", "separate": "one forward a question"}

recorded = pytest.mark.recorded("vlm")
each_family = pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.matrix) for name in FAMILIES]
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, request):
    """Loads a family's VLM, once."""
    found, dtype = {}, request.config.getoption("--matrix-dtype", default="float32")

    def load(family):
        if family not in found:
            folder = save(FAMILIES[family].build(), tmp_path_factory.mktemp("vlm"))
            found[family] = load_vlm(VlmSpec(model=str(folder), dtype=dtype), torch.device("cpu"))
        return found[family]

    return load


@pytest.fixture
def vlm(loaded, family):
    if FAMILIES[family].needs:
        pytest.importorskip(FAMILIES[family].needs)
    return loaded(family)


def pictures(count=1, height=HEIGHT, width=WIDTH):
    """[count, 3, height, width] in steps of 1/255, smooth enough for rounding not to matter."""
    rng = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, 4, 4, generator=rng)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return (smooth * 255).round() / 255


@recorded
@each_family
def test_pixels_are_the_processors(vlm):
    """A float tensor is prepared as the processor itself prepares the picture, up to its 8-bit rounding."""
    image = pictures()[0]
    own = encode(vlm, [to_pil_image(image)], QUESTIONS[0])
    keys = plan(vlm).pixel_keys
    found = picture_inputs(vlm.processor, [[image]], keys)
    for key in keys:
        levels = 3 / 255 / 0.25 if found[key].is_floating_point() else 0  # over the smallest deviation
        torch.testing.assert_close(found[key], own[key].to(found[key]), rtol=0, atol=levels)


@recorded
@each_family
def test_processor_gradient(vlm):
    """The gradient through the processor is the finite difference along a direction."""
    image = pictures()[0].double().requires_grad_()
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(1)).double()

    def value(x):
        pixels = picture_inputs(vlm.processor, [[x]], ["pixel_values"])["pixel_values"].double()
        return (pixels * torch.linspace(-1, 1, pixels.numel()).view_as(pixels)).sum()

    (gradient,) = torch.autograd.grad(value(image), image)
    with torch.no_grad():
        step = 1e-3
        difference = (value(image + step * direction) - value(image - step * direction)) / (2 * step)
    assert gradient.abs().sum() > 0
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-3, atol=1e-3)


@recorded
@each_family
def test_answer_is_the_next_text(vlm, family):
    """Prompt and answer are the tokens of a dialogue in which the assistant has given that answer."""
    prompts, blank = plan(vlm), to_pil_image(pictures()[0])
    decode = vlm.processor.tokenizer.decode
    for q, question in enumerate(QUESTIONS):
        for a, answer in enumerate(ANSWERS[q]):
            found = [*prompts.tokens[q], *prompts.answers[q][a]]
            inputs = encode(vlm, [blank], question, answer, FAMILIES[family].suffix)
            dialogue = inputs["input_ids"][0].tolist()
            assert decode(dialogue).startswith(decode(found))
            if not decode(prompts.tokens[q]).endswith(" "):  # which a dialogue joins to the word after it
                assert dialogue[: len(found)] == found


@recorded
@each_family
def test_losses_and_gradients(vlm, family):
    images = pictures(2).requires_grad_()
    scores = AnswerScorer(vlm, QUESTIONS, ANSWERS)(images).log_likelihood
    compare(vlm, family, scores, images, [[image] for image in images])


@recorded
@each_family
def test_two_pictures(vlm, family):
    """A picture shown beside each picture, or one line where a model takes only one."""
    images, beside = pictures(2).requires_grad_(), pictures(1, 40, 40)[0]
    if not FAMILIES[family].several:
        with pytest.raises(UserError, match="cannot"):
            AnswerScorer(vlm, QUESTIONS, ANSWERS)(images, beside=beside)
        return
    scores = AnswerScorer(vlm, QUESTIONS, ANSWERS)(images, beside=beside).log_likelihood
    compare(vlm, family, scores, images, [[image, beside] for image in images])


@recorded
@each_family
def test_mechanism(vlm, family, record_property):
    mode = AnswerScorer(vlm, QUESTIONS, ANSWERS).prepare(HEIGHT, WIDTH)
    how = MECHANISMS[mode.name] + ("" if mode.batched else ", picture by picture")
    fault = mode.reason.partition("; ")[0]  # of the fastest way
    record_property("workarounds", [f"{how}, as {fault}" if fault else how, *vlm.workarounds])
    assert str(mode) == FAMILIES[family].mode


@recorded
@pytest.mark.parametrize("family", [pytest.param(name, marks=pytest.mark.matrix) for name in EXCEPTIONS])
def test_is_refused(family, tmp_path, record_property):
    """What cannot be asked is refused in one line, for the reason that is known."""
    known = EXCEPTIONS[family]
    record_property("reason", known.reason)
    spec = VlmSpec(model=str(save(known.build(), tmp_path)))

    def ask():
        AnswerScorer(load_vlm(spec, torch.device("cpu")), QUESTIONS, ANSWERS).prepare(HEIGHT, WIDTH)

    with pytest.raises(UserError, match=known.message) as error:
        ask()
    assert "\n" not in str(error.value)


@pytest.mark.matrix
def test_every_type_of_transformers_is_tried_or_named():
    """A newer transformers has further types, which are to be built or named."""
    built = {known.build().config.model_type for known in (*FAMILIES.values(), *EXCEPTIONS.values())}
    assert not built & NOT_TRIED.keys()
    assert built | NOT_TRIED.keys() >= MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.keys()


def plan(vlm):
    return plan_prompts(vlm.processor, QUESTIONS, ANSWERS, [(HEIGHT, WIDTH)])


def compare(vlm, family, scores, images, shown):
    for q, question in enumerate(QUESTIONS):
        for a, answer in enumerate(plan(vlm).answers[q]):
            by_itself = [by_hand(vlm, FAMILIES[family], group, question, answer) for group in shown]
            expected = torch.stack(by_itself)
            rounding = FAMILIES[family].rounding if vlm.dtype == torch.float32 else ROUNDING_16_BIT
            close(scores[q][:, a], expected, rounding)
            close(gradient(scores[q][:, a], images), gradient(expected, images), rounding)


def gradient(values, images):
    found = torch.autograd.grad(values.sum(), images, retain_graph=True)[0]
    assert found.abs().amax((1, 2, 3)).min() > 0
    return found


def close(found, expected, rounding):
    largest = expected.detach().abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=rounding * largest)


def encode(vlm, images, question, answer=None, suffix=False, **options):
    """The processor's own inputs for pictures, of a question or of a dialogue with its answer."""
    content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    if suffix and answer is not None:
        options["suffix"] = answer
    elif answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    inputs = vlm.processor.apply_chat_template(
        messages,
        add_generation_prompt=len(messages) == 1,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )
    return {key: value for key, value in inputs.items() if key != "labels"}


def by_hand(vlm, family, images, question, answer):
    """The log-likelihood of an answer's tokens in a plain forward; of a prefix-LM, as it is generated."""
    if family.tensors:
        inputs = encode(vlm, [255 * image for image in images], question)
    else:
        inputs = encode(vlm, map(to_pil_image, images), question)
        inputs |= vlm.processor.image_processor([[255 * image for image in images]], return_tensors="pt")
    inputs = {
        key: value.to(vlm.dtype) if value.is_floating_point() else value for key, value in inputs.items()
    }
    prompt = inputs["input_ids"].shape[1]
    target = torch.tensor([answer])
    if family.mode != "vision":
        for key, value in inputs.items():
            if value.shape[:2] == (1, prompt):
                last = value[:, -1:].expand(-1, target.shape[1], *value.shape[2:])
                inputs[key] = torch.cat([value, target if key == "input_ids" else last], 1)
        logits = vlm.model(**inputs, use_cache=False).logits[0, prompt - 1 : -1]
    else:
        first = vlm.model(**inputs, use_cache=True)
        rest = vlm.model(input_ids=target, cache=first.cache, use_cache=True)
        logits = torch.cat([first.logits[0, -1:], rest.logits[0, :-1]])
    return -F.cross_entropy(logits.float(), target[0], reduction="sum")
