"""Log-probabilities of answers about pictures, with the work that questions have in common done once.

`shared_prefix` encodes a picture and the text before the first question-specific token once, expands the
key-value cache to one row an answer, and scores all answers in a second, short pass. It needs causal
attention over the picture. Where that does not hold, `shared_vision` still runs the vision tower once.
`plain` and `generated` share nothing: they define what the answers are, of causal models and of prefix-LMs.

All of them return [B, T] float32: the log-probability of each answer token, question by question, candidate
by candidate, token by token.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dualproc_cli.vlm.chat import Prompts, Tokens

# Names of the key-value cache, which a pass returns and the next pass takes: the new one and the old one.
CACHES = ("cache", "past_key_values")
# The model's input for pictures that have already gone through the vision tower.
ENCODED_PICTURES = "mm_encoder_outputs"


@dataclass(frozen=True)
class Query:
    """Questions about a batch of pictures, for one call of the functions below.

    Attributes:
        model: the frozen VLM.
        prompts: all questions and their candidate answers as tokens.
        asked: indices of the questions to ask.
        pictures: the model's picture inputs, with their graph.
        batch: B, how many pictures (or pairs of pictures) they hold.
    """

    model: Any
    prompts: Prompts
    asked: Sequence[int]
    pictures: dict[str, Any]
    batch: int

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.model.device

    def prompt(self, q: int, length: int | None = None) -> dict[str, Tensor]:
        """Return the first ``length`` tokens of prompt ``q`` and their token inputs, for each picture."""
        token_inputs = {
            key: value[:, :length].to(self.device).expand(self.batch, *(-1,) * (value.ndim - 1))
            for key, value in self.prompts.token_inputs[q].items()
        }
        return {"input_ids": self.row(self.prompts.tokens[q][:length]), **token_inputs}

    def beyond_tokens(self, q: int) -> dict[str, Any]:
        """Return, for each picture, its inputs and those of question ``q`` that have no entry per token."""
        inputs = {
            key: value.to(self.device).expand(self.batch, *value.shape[1:])
            for key, value in self.prompts.question_inputs[q].items()
        }
        return self.pictures | inputs

    def row(self, tokens: Tokens) -> Tensor:
        """Return the same tokens for each picture: [B, L]."""
        return torch.tensor(tokens, device=self.device).expand(self.batch, -1)

    def continuation(self, q: int, rows: int, length: int) -> dict[str, Tensor]:
        """Return the token inputs [rows, length, ...] of tokens after prompt ``q``.

        Token types apply to prompts only and are left out. Inputs that say which pictures a token may attend
        to continue with the values of the prompt's last token.
        """
        return {
            key: value[:, -1:].to(self.device).expand(rows, length, *value.shape[2:])
            for key, value in self.prompts.token_inputs[q].items()
            if value.ndim > 2
        }


@dataclass(frozen=True)
class Rows:
    """Token rows that continue a shared prefix, and where each answer token's distribution is found.

    Attributes:
        tokens: [R, L] right-padded; candidates that differ in their last token alone share a row.
        kept: [R, L] True where the next token belongs to an answer; K in all.
        slots: [T] the distribution that predicts each answer token: 0 for the prefix's last, 1 to K for kept.
        targets: [T] the answer tokens.
    """

    tokens: Tensor
    kept: Tensor
    slots: Tensor
    targets: Tensor

    @classmethod
    def after_prefix(
        cls, contexts: Sequence[Tokens], answers: Sequence[Sequence[Tokens]], device: torch.device
    ) -> "Rows":
        """Return rows ``context + answer[:-1]``, where a context follows the prefix in each prompt."""
        pairs = [
            (context, answer) for context, group in zip(contexts, answers, strict=True) for answer in group
        ]
        rows = dict.fromkeys(context + answer[:-1] for context, answer in pairs)
        rows.pop((), None)  # nothing follows the prefix: its last distribution is the answer's
        index = {row: place for place, row in enumerate(rows)}
        kept = torch.zeros(len(rows), max(map(len, rows), default=0), dtype=torch.bool)
        places = [
            (index.get(context + answer[:-1], -1), len(context) - 1 + position)
            for context, answer in pairs
            for position in range(len(answer))
        ]
        for row, column in places:
            if column >= 0:
                kept[row, column] = True
        slots = {(row, column): slot for slot, (row, column) in enumerate(kept.nonzero().tolist(), start=1)}
        padded = pad_sequence([torch.tensor(row) for row in rows], batch_first=True) if rows else kept.long()
        targets = [token for _, answer in pairs for token in answer]
        return cls(
            tokens=padded.to(device),
            kept=kept.to(device),
            slots=torch.tensor([slots.get(place, 0) for place in places], device=device),
            targets=torch.tensor(targets, device=device),
        )


def shared_prefix(query: Query) -> Tensor:
    """Run one pass over the prefix with a row per picture, and one over the rest with a row per answer."""
    model, prompts, some = query.model, query.prompts, query.asked[0]
    contexts = [prompts.tokens[q][prompts.shared :] for q in query.asked]
    rows = Rows.after_prefix(contexts, [prompts.answers[q] for q in query.asked], query.device)
    prefix = query.prompt(some, prompts.shared) | query.beyond_tokens(some)
    logits, out = _forward(model, 1, prefix, use_cache=True)
    if count := len(rows.tokens):
        name, cache = _cache(out)
        # Picture-major, the order in which M-RoPE families repeat the position offsets kept from the prefix.
        cache.reorder_cache(torch.arange(query.batch, device=query.device).repeat_interleave(count))
        # Causal attention over right-padded rows needs no mask and no positions, and M-RoPE rejects them.
        suffix = query.continuation(some, query.batch * count, rows.tokens.shape[1])
        suffix |= {"input_ids": rows.tokens.repeat(query.batch, 1), name: cache}
        following, _ = _forward(model, rows.kept.repeat(query.batch, 1), suffix, use_cache=True)
        logits = torch.cat([logits, following.reshape(query.batch, -1, logits.shape[-1])], 1)
    return _pick(logits, rows.slots, rows.targets)


def shared_vision(query: Query) -> Tensor:
    """Run the vision tower once, and the language model for every question."""
    features = query.model.get_image_features(**query.pictures, return_dict=True)
    rest = {key: value for key, value in query.pictures.items() if not key.startswith("pixel_")}
    return _prompt_by_prompt(replace(query, pictures={**rest, ENCODED_PICTURES: {"image": features}}))


def generated(query: Query) -> Tensor:
    """Run each prompt by itself, then its answers on its cache, as `generate` does.

    This is the definition for prefix-LMs. In a single pass they would treat the answer as part of the prompt.
    """
    return _prompt_by_prompt(query)


def plain(query: Query) -> Tensor:
    """Run one forward over prompt and answer for each candidate: the definition for causal models."""
    found = []
    for q in query.asked:
        for answer in query.prompts.answers[q]:
            inputs = query.prompt(q)
            if given := len(answer) - 1:
                more = {
                    key: value[:, -1:].expand(-1, given, *value.shape[2:]) for key, value in inputs.items()
                }
                more["input_ids"] = query.row(answer[:-1])
                inputs = {key: torch.cat([value, more[key]], 1) for key, value in inputs.items()}
            logits, _ = _forward(query.model, len(answer), inputs | query.beyond_tokens(q), use_cache=False)
            found.append(_in_turn(logits, answer))
    return torch.cat(found, 1)


def lookahead(query: Query) -> Tensor:
    """Return how much a prompt's logits change with the text after them, relative to their spread: [B].

    With causal attention only rounding changes them; a prefix-LM looks ahead, so its prefix cannot be shared.
    """
    prompts = query.prompts
    q = max(query.asked, key=lambda index: len(prompts.tokens[index]))
    last = len(prompts.tokens[q]) - 1
    cut = min(prompts.shared, last) if prompts.holds_pictures else last
    inputs = query.prompt(q)
    other = inputs["input_ids"].clone()
    other[:, cut:] = prompts.answers[q][0][0]
    some = torch.arange(0, cut, max(cut // 16, 1), device=query.device)
    inputs |= query.beyond_tokens(q)
    first, _ = _forward(query.model, some, inputs, use_cache=False)
    second, _ = _forward(query.model, some, inputs | {"input_ids": other}, use_cache=False)
    first, second = first.float(), second.float()
    return (first - second).abs().mean((1, 2)) / first.std((1, 2))


def _prompt_by_prompt(query: Query) -> Tensor:
    found = []
    for q in query.asked:
        first = None
        for answer in query.prompts.answers[q]:
            # All candidates share the first token's distribution. A candidate of several tokens uses up the
            # cache, so the next one needs a pass of its own.
            if first is None or len(answer) > 1:
                first, out = _forward(
                    query.model, 1, query.prompt(q) | query.beyond_tokens(q), use_cache=True
                )
            logits = first
            if given := len(answer) - 1:
                name, cache = _cache(out)
                suffix = {"input_ids": query.row(answer[:-1]), name: cache}
                suffix |= query.continuation(q, query.batch, given)
                following, _ = _forward(query.model, given, suffix, use_cache=True)
                logits = torch.cat([first, following], 1)
            found.append(_in_turn(logits, answer))
    return torch.cat(found, 1)


def _forward(model: Any, keep: int | Tensor, inputs: dict[str, Any], use_cache: bool) -> tuple[Tensor, Any]:
    """Run a pass over ``inputs``; return its logits at the tokens to ``keep``, and all that it returned.

    ``keep`` is the number of last tokens, the positions [K] of some, or a mask [R, L].
    """
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        out = model(**inputs, use_cache=use_cache, logits_to_keep=keep)
        return out.logits, out
    out = model(**inputs, use_cache=use_cache)  # models without it return the logits of all tokens
    if isinstance(keep, int):
        return out.logits[:, -keep:], out
    return out.logits[keep] if keep.dtype == torch.bool else out.logits[:, keep], out


def _pick(logits: Tensor, slots: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probabilities [B, T] of ``targets`` [T] in ``slots`` [T] of ``logits`` [B, S, V]."""
    return logits.float().log_softmax(-1)[:, slots, targets]


def _in_turn(logits: Tensor, answer: Tokens) -> Tensor:
    targets = torch.tensor(answer, device=logits.device)
    return _pick(logits, torch.arange(len(answer), device=logits.device), targets)


def _cache(out: Any) -> tuple[str, Any]:
    """Return the name of the input that takes the cache of a pass in the next pass, and the cache.

    Linear-attention layers overwrite their state in place, which breaks the backward pass. Here they are made
    to keep it, because nothing uses the state after the second pass.
    """
    name = next((name for name in CACHES if name in out), None)
    if name is None:
        raise ValueError("the model returns no cache")
    for layer in getattr(out[name], "layers", ()):
        if hasattr(layer, "update_recurrent_state"):
            layer.update_recurrent_state = lambda state, *args, **options: state
    return name, out[name]
