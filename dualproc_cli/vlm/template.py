"""The chat template of questions: the model's own, changed so that the answer follows directly."""

import json
import logging
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from PIL import Image
from transformers import ProcessorMixin
from transformers.utils import logging as transformers_logging

logger = logging.getLogger(__name__)

# For a processor without a chat template: the picture, the question, then the answer.
PLAIN = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ ' ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ 'IMAGE' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)
# Put before the template of a language model, which takes contents as strings.
STRINGS = (
    "{% set all = namespace(messages=[]) %}{% for message in messages %}{% set all.text = '' %}"
    "{% for part in message['content'] %}"
    "{% set all.text = all.text ~ ('IMAGE\n' if part['type'] == 'image' else part['text']) %}{% endfor %}"
    "{% set all.messages = all.messages + [{'role': message['role'], 'content': all.text}] %}{% endfor %}"
    "{% set messages = all.messages %}{{ '' }}"
)
# Variables that turn thinking off in the templates of thinking models.
SWITCHES = ("enable_thinking", "thinking")
# How a thought begins and ends.
THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<|think|>", "<|/think|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
)
MARK = "MARK"  # stands for any words of a user or an assistant

# The exceptions that templates raise on messages they do not support.
TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, AttributeError, LookupError)


def set_template(processor: ProcessorMixin, name: str) -> tuple[str, ...]:
    """Set the chat template of model ``name`` so that the answer comes right after the generation prompt.

    The model's own template is used, with thinking turned off by its own switch if it has one. If the
    generation prompt still opens a thought, or the template writes one before the assistant's words, an empty
    thought is added to the generation prompt.

    Returns:
        the changes, each with its reason.
    """
    workarounds = []
    template = processor.chat_template or processor.tokenizer.chat_template
    if isinstance(template, dict):  # several, by purpose
        template = template.get("default") or next(iter(template.values()))
    if not template:
        logger.warning("%s has no chat template: questions are put right after the picture", name)
        workarounds.append("plain chat template: it has none of its own")
        template = PLAIN.replace("IMAGE", _placeholder(processor))
    elif not _takes_picture(processor, template):
        strings = STRINGS.replace("IMAGE", _placeholder(processor)) + template
        if _takes_picture(processor, strings):
            logger.warning("%s has a chat template for text only: pictures are put before the text", name)
            workarounds.append("messages as strings: its chat template is of text alone")
            template = strings
    if switches := [switch for switch in SWITCHES if _looks_at(template, switch)]:
        workarounds.append(f"{switches[0]} off: the answer must be its next text")
        template = "".join(f"{{% set {switch} = false %}}" for switch in switches) + "{{ '' }}" + template
    processor.chat_template = template
    if thought := _thought(processor):
        logger.warning("%s thinks before it answers: questions close an empty thought first", name)
        workarounds.append("empty thought: it thinks before it answers")
        closed = f"{{{{ {json.dumps(thought)} }}}}"
        processor.chat_template += f"{{% if add_generation_prompt %}}{closed}{{% endif %}}"
    return tuple(workarounds)


def user_message(question: str, pictures: Sequence[Any]) -> dict[str, Any]:
    """Return a user's message: pictures, then a question about them."""
    content = [{"type": "image", "image": picture} for picture in pictures]
    return {"role": "user", "content": [*content, {"type": "text", "text": question}]}


def before_answer(processor: ProcessorMixin, question: str, answer: str) -> str:
    """Return what the template puts between its generation prompt and an assistant's words in a dialogue."""
    try:
        prompt = processor.apply_chat_template(
            [user_message(question, [None])], add_generation_prompt=True, tokenize=False
        )
    except TEMPLATE_ERRORS:  # encoding the first question reports it
        return ""
    dialogue = _dialogue(processor, question, answer)
    before, found, _ = dialogue.removeprefix(prompt).partition(answer)
    return before if found and dialogue.startswith(prompt) else ""


def after_answer(processor: ProcessorMixin, question: str) -> str:
    """Return what the template puts right after an assistant's words in a dialogue: the end of the turn."""
    _, found, after = _dialogue(processor, question, MARK).rpartition(MARK)
    return after if found else ""


def _dialogue(processor: ProcessorMixin, question: str, answer: str) -> str:
    """Return the text of a question and its answer; empty if the template supports questions only."""
    reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    try:
        return processor.apply_chat_template([user_message(question, [None]), reply], tokenize=False)
    except TEMPLATE_ERRORS:
        return ""


def _looks_at(template: str, name: str) -> bool:
    return re.search(rf"{{[{{%][^{{}}]*\b{name}\b", template) is not None


def _takes_picture(processor: ProcessorMixin, template: str) -> bool:
    message = user_message(MARK, [Image.new("RGB", (64, 64))])
    try:
        processor.apply_chat_template([message], chat_template=template, tokenize=True, return_dict=True)
    except TEMPLATE_ERRORS:
        return False
    return True


def _placeholder(processor: ProcessorMixin) -> str:
    """Return the placeholder of a picture in a text; empty if the processor puts pictures there by itself."""
    token = str(getattr(processor, "image_token", "<image>"))

    def length(text: str, **inputs: Any) -> int:
        try:
            return len(processor(text=[text], **inputs)["input_ids"][0])
        except TEMPLATE_ERRORS:
            return 0

    shown = {"images": [[Image.new("RGB", (64, 64))]]}
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # some warn about a text without placeholders
    try:
        by_itself, alone, placed = length(MARK, **shown), length(MARK), length(token + MARK, **shown)
    finally:
        transformers_logging.set_verbosity(verbosity)
    return "" if by_itself > alone > 0 and by_itself != placed else token


def _thought(processor: ProcessorMixin) -> str:
    """Return the text that closes an empty thought if the prompt opens one or one precedes the answer."""
    before = before_answer(processor, "", MARK)
    if any(closing in before for _, closing in THOUGHTS):
        return before
    try:
        prompt = processor.apply_chat_template(
            [user_message(MARK, [None])], add_generation_prompt=True, tokenize=False
        )
    except TEMPLATE_ERRORS:  # encoding the first question reports it
        return ""
    after = prompt.rpartition(MARK)[2]
    for opening, closing in THOUGHTS:
        if after.rfind(opening) > after.rfind(closing):
            line = "" if after.endswith("\n") else "\n"
            return f"{line}{closing}\n\n"
    return ""
