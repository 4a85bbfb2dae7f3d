"""Log-probabilities of answers about pictures, with the work that questions have in common done once.

`shared_prefix` encodes a picture and the text before the first question-specific token once, expands the key-value
cache to one row a question, and reads all answers in a second, short pass. It needs causal attention over the
picture. Where that does not hold, `shared_vision` still runs the vision tower once; `separate` shares nothing.
`plain` is the definition that the others are checked against.

All of them return [B, T] float32: the log-probability of each answer token, question by question, candidate by
candidate, token by token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from dualproc_cli.vlm.chat import Prompts, Tokens

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """Token rows that continue a shared prefix, and where each answer token's distribution is found.

    Attributes:
        tokens: [R, L] right-padded; candidates that differ in their last token alone share a row.
        kept: [R, L] True where the next token belongs to an answer; K in all.
        slots: [T] for each answer token its place in the prefix's last distribution followed by the K kept ones.
        targets: [T] the answer tokens.
    """

    tokens: Tensor
    kept: Tensor
    slots: Tensor
    targets: Tensor

    @classmethod
    def after_prefix(cls, contexts: Sequence[Tokens], answers: Sequence[Sequence[Tokens]], device: torch.device) -> "Rows":
        """Rows ``context + answer[:-1]``, where the contexts are what follows the prefix in each prompt."""
        pairs = [(context, answer) for context, group in zip(contexts, answers, strict=True) for answer in group]
        # A row's index, by its tokens; an empty row needs no pass, its distribution is the prefix's last one.
        index: dict[Tokens, int] = {}
        for context, answer in pairs:
            if row := context + answer[:-1]:
                index.setdefault(row, len(index))
        length = max(map(len, index), default=0)
        kept = torch.zeros(len(index), length, dtype=torch.bool)
        for context, answer in pairs:
            if row := context + answer[:-1]:
                kept[index[row], max(len(context) - 1, 0) : len(row)] = True
        place = torch.zeros(len(index) + 1, length, dtype=torch.long)
        place[:-1][kept] = torch.arange(1, int(kept.sum()) + 1)
        slots = [
            int(place[index[context + answer[:-1]], position]) if position >= 0 else 0
            for context, answer in pairs
            for position in range(len(context) - 1, len(context) - 1 + len(answer))
        ]
        rows = [torch.tensor(row) for row in index]
        tokens = pad_sequence(rows, batch_first=True) if rows else torch.zeros(0, 0, dtype=torch.long)
        targets = [token for _, answer in pairs for token in answer]
        return cls(*(t.to(device) for t in (tokens, kept, torch.tensor(slots), torch.tensor(targets))))


def shared_prefix(model: PreTrainedModel, prompts: Prompts, asked: Sequence[int], pictures: Inputs, batch: int) -> Tensor:
    """One pass over the prefix with ``batch`` rows, one over what follows it with a row for each picture and answer."""
    shared = prompts.shared
    contexts = [prompts.tokens[q][shared:] for q in asked]
    rows = Rows.after_prefix(contexts, [prompts.answers[q] for q in asked], model.device)
    out = model(**_tokens(model, prompts, asked[0], batch, shared), **pictures, use_cache=True, logits_to_keep=1)
    logits = out.logits[:, -1:]
    if count := len(rows.tokens):
        cache = out.past_key_values
        _keep_recurrent_states(cache)
        # Picture-major, the order in which M-RoPE families repeat the position offsets they keep from the prefix.
        cache.reorder_cache(torch.arange(batch, device=model.device).repeat_interleave(count))
        # No mask and no positions: causal attention over right-padded rows needs none, and M-RoPE rejects them.
        answers = model(
            input_ids=rows.tokens.repeat(batch, 1),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=rows.kept.repeat(batch, 1),
            **_continued(prompts.sides[asked[0]], batch * count, rows.tokens.shape[1], model.device),
        )
        logits = torch.cat([logits, answers.logits.reshape(batch, -1, logits.shape[-1])], 1)
    return _pick(logits, rows.slots, rows.targets)


def shared_vision(model: PreTrainedModel, prompts: Prompts, asked: Sequence[int], pictures: Inputs, batch: int) -> Tensor:
    """The vision tower once, the language model for every question: for prefix-LMs and pictures after the question."""
    features = model.get_image_features(**pictures, return_dict=True)
    rest = {key: value for key, value in pictures.items() if not key.startswith("pixel_")}
    return _own_prompts(model, prompts, asked, lambda: {**rest, "mm_encoder_outputs": {"image": features}}, batch)


def separate(model: PreTrainedModel, prompts: Prompts, asked: Sequence[int], pictures: Inputs, batch: int) -> Tensor:
    """Everything for every question, as `generate` does: the prompt, then the answer on its cache."""
    return _own_prompts(model, prompts, asked, lambda: pictures, batch)


def plain(model: PreTrainedModel, prompts: Prompts, asked: Sequence[int], pictures: Inputs, batch: int) -> Tensor:
    """The definition for causal models: one forward over prompt and answer for each candidate, no cache."""
    found = []
    for q in asked:
        for answer in prompts.answers[q]:
            inputs = _tokens(model, prompts, q, batch, len(prompts.tokens[q]))
            if given := len(answer) - 1:
                more = {"input_ids": _row(answer[:-1], batch, model.device)}
                more |= {k: v[:, -1:].expand(-1, given, *v.shape[2:]) for k, v in inputs.items() if k != "input_ids"}
                inputs = {key: torch.cat([value, more[key]], 1) for key, value in inputs.items()}
            logits = model(**inputs, **pictures, use_cache=False, logits_to_keep=len(answer)).logits
            found.append(_in_turn(logits[:, -len(answer) :], answer))
    return torch.cat(found, 1)


def foresight(model: PreTrainedModel, prompts: Prompts, asked: Sequence[int], pictures: Inputs, batch: int) -> Tensor:
    """How far the prefix's distributions change with what follows it, relative to their spread, for each picture [B].

    Nothing but rounding with causal attention; a prefix-LM looks ahead, so its prefix cannot be shared.
    """
    q = max(asked, key=lambda index: len(prompts.tokens[index]))
    inputs = _tokens(model, prompts, q, batch, len(prompts.tokens[q]))
    other = inputs["input_ids"].clone()
    other[:, prompts.shared :] = prompts.answers[q][0][0]
    some = torch.arange(0, prompts.shared, max(prompts.shared // 16, 1), device=model.device)
    one, two = (
        model(**{**inputs, "input_ids": ids}, **pictures, use_cache=False, logits_to_keep=some).logits.float()
        for ids in (inputs["input_ids"], other)
    )
    return (one - two).abs().mean((1, 2)) / one.std((1, 2))


def _own_prompts(
    model: PreTrainedModel, prompts: Prompts, asked: Sequence[int], pictures: Callable[[], dict[str, Any]], batch: int
) -> Tensor:
    found = []
    for q in asked:
        first = None
        for answer in prompts.answers[q]:
            # The first token's distribution serves all candidates; a longer one uses up the cache of a pass.
            if first is None or len(answer) > 1:
                inputs = _tokens(model, prompts, q, batch, len(prompts.tokens[q]))
                out = model(**inputs, **pictures(), use_cache=True, logits_to_keep=1)
                first = out.logits[:, -1:]
            logits = first
            if given := len(answer) - 1:
                _keep_recurrent_states(out.past_key_values)
                following = model(
                    input_ids=_row(answer[:-1], batch, model.device),
                    past_key_values=out.past_key_values,
                    use_cache=True,
                    **_continued(prompts.sides[q], batch, given, model.device),
                )
                logits = torch.cat([first, following.logits], 1)
            found.append(_in_turn(logits, answer))
    return torch.cat(found, 1)


def _tokens(model: PreTrainedModel, prompts: Prompts, q: int, batch: int, length: int) -> Inputs:
    """The first ``length`` tokens of prompt ``q`` and their side inputs, once for each picture."""
    sides = {
        key: value[:, :length].to(model.device).expand(batch, *(-1,) * (value.ndim - 1))
        for key, value in prompts.sides[q].items()
    }
    return {"input_ids": _row(prompts.tokens[q][:length], batch, model.device), **sides}


def _continued(sides: Inputs, rows: int, length: int, device: torch.device) -> Inputs:
    """Side inputs for tokens after the prompt.

    Token types are for prompts alone; what tells each token which pictures it sees (cross-attention) goes on.
    """
    return {
        key: value[:, -1:].to(device).expand(rows, length, *value.shape[2:])
        for key, value in sides.items()
        if value.ndim > 2
    }


def _row(tokens: Tokens, batch: int, device: torch.device) -> Tensor:
    return torch.tensor(tokens, device=device).expand(batch, -1)


def _pick(logits: Tensor, slots: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities [B, T] of ``targets`` [T] in the distributions ``slots`` [T] of ``logits`` [B, S, V]."""
    return logits.float().log_softmax(-1)[:, slots, targets]


def _in_turn(logits: Tensor, answer: Tokens) -> Tensor:
    targets = torch.tensor(answer, device=logits.device)
    return _pick(logits, torch.arange(len(answer), device=logits.device), targets)


def _keep_recurrent_states(cache: Any) -> None:
    """Let linear-attention layers leave the state they hold as it is.

    They overwrite it in place, which breaks the backward pass; after the last pass nobody reads it.
    """
    for layer in getattr(cache, "layers", ()):
        if hasattr(layer, "update_recurrent_state"):
            layer.update_recurrent_state = lambda state, *args, **options: state
