"""Chat templates: the model's own, a plain one, and those of models that think before they answer."""

import pytest
from PIL import Image
from small_vlm import tokenizer
from transformers import Idefics3Processor

from dualproc_cli.spec import VlmSpec
from dualproc_cli.vlm import load_processor
from dualproc_cli.vlm.chat import plan_prompts
from dualproc_cli.vlm.template import PLAIN, set_template, user_message

TURNS = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}SAID{{ c['text'] }}{% endif %}{% endfor %}"
    "<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\nOPEN{% endif %}"
)
SWITCHED = (
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}"
)


@pytest.fixture
def processor(vlm_folder):
    return load_processor(VlmSpec(model=str(vlm_folder))).processor


def template(opening, said=""):
    spoken = "{% if m['role'] == 'assistant' %}" + said + "{% endif %}"
    return TURNS.replace("OPEN", opening).replace("SAID", spoken)


def prompt(processor):
    """The prompt of a question, from the question on."""
    content = [{"type": "image"}, {"type": "text", "text": "Is it night?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    return text.partition("Is it night?")[2]


@pytest.mark.parametrize(
    ("opening", "said", "expected", "workaround"),
    [
        ("", "", "", None),
        (SWITCHED, "", "<think>\n\n</think>\n\n", "enable_thinking off"),
        (SWITCHED.replace("enable_", ""), "", "<think>\n\n</think>\n\n", "thinking off"),
        ("<think>", "", "<think>\n</think>\n\n", "empty thought"),
        ("<think>\n", "", "<think>\n</think>\n\n", "empty thought"),
        (
            "<think>\n",
            "<think>\n\n</think>\n\n",
            "<think>\n\n</think>\n\n",
            "empty thought",
        ),  # as it closes it
        ("", "<think></think>\n", "<think></think>\n", "empty thought"),  # as it answers without one
        ("[THINK]", "", "[THINK]\n[/THINK]\n\n", "empty thought"),
        ("◁think▷", "", "◁think▷\n◁/think▷\n\n", "empty thought"),
        ("<|channel>thought\n", "", "<|channel>thought\n<channel|>\n\n", "empty thought"),
        ("<|channel>thought\n<channel|>", "", "<|channel>thought\n<channel|>", None),
    ],
)
def test_the_answer_comes_after_the_thought(opening, said, expected, workaround, processor, caplog):
    processor.chat_template = template(opening, said)
    workarounds = set_template(processor, "small")
    assert prompt(processor) == f"<|end|>\n<|assistant|>\n{expected}"
    assert [text.partition(":")[0] for text in workarounds] == ([workaround] if workaround else [])
    assert ("thinks before it answers" in caplog.text) == (workaround == "empty thought")


def test_an_answer_is_the_next_text_after_an_opened_thought(processor):
    """In tokens, as the questions of a spec are planned."""
    words = tokenizer(
        "<think>", "</think>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"
    )
    thinking = Idefics3Processor(
        processor.image_processor, words, image_seq_len=16, chat_template=template("<think>")
    )
    set_template(thinking, "small")
    prompts = plan_prompts(thinking, ["Is it night?"], [["Yes", "No"]], [(64, 64)])
    written = words.convert_ids_to_tokens(prompts.tokens[0] + prompts.answers[0][0])
    assert written[-3:] == ["<think>", "</think>", "Yes"]


def test_a_thought_in_the_instructions_is_not_open(processor):
    processor.chat_template = "Your thinking belongs within <think> tags.\n" + template("")
    assert set_template(processor, "small") == ()
    assert prompt(processor).endswith("<|assistant|>\n")


def test_named_templates(processor):
    processor.chat_template = {"tools": "?", "default": template("")}
    assert set_template(processor, "small") == ()
    assert processor.chat_template == template("")


def test_without_a_template_a_plain_one(processor, caplog):
    processor.chat_template = processor.tokenizer.chat_template = None
    (workaround,) = set_template(processor, "small")
    assert workaround.startswith("plain chat template")
    assert "small has no chat template: questions are put right after the picture" in caplog.text
    assert processor.chat_template == PLAIN.replace("IMAGE", "<image>")


def test_the_tokenizers_template(processor):
    processor.chat_template, processor.tokenizer.chat_template = None, template("")
    assert set_template(processor, "small") == ()
    assert prompt(processor).endswith("<|assistant|>\n")


def test_a_template_of_text_alone(processor, caplog):
    processor.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'].strip() }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    (workaround,) = set_template(processor, "small")
    assert workaround.startswith("messages as strings")
    assert "small has a chat template for text only" in caplog.text
    message = user_message("Is it night?", [Image.new("RGB", (64, 64))] * 2)
    text = processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    assert text == "<|user|><image>\n<image>\nIs it night?<|end|><|assistant|>"
    prompts = plan_prompts(processor, ["Is it night?"], [["Yes"]], [(64, 64)])
    assert prompts.tokens[0].count(processor.image_token_id) == 16
    assert prompts.answers == ((tuple(processor.tokenizer.encode("Yes", add_special_tokens=False)),),)


@pytest.mark.parametrize("broken", ["{% for", "{{ messages[7]['content'] }}", "{{ raise_exception('no') }}"])
def test_a_broken_template_is_left_to_the_first_question(broken, processor):
    processor.chat_template = broken
    assert set_template(processor, "small") == ()
