"""Questions for the VLM's training: which are asked, and how they are packed into one row of tokens.

A row is one picture prefix and QUESTIONS suffixes, each a question with its answer. The suffixes attend to
the prefix and not to each other, so that one forward pass answers all of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dualproc_cli.miniature.training.vlm_model import IMAGE_TOKENS, build_tokenizer
from dualproc_cli.miniature.world.language import OPEN_KINDS, WORDINGS, YES_NO_KINDS
from dualproc_cli.miniature.world.questions import UNCLEAR, Margin, open_answers
from dualproc_cli.miniature.world.scene import Scene

QUESTIONS = 3  # asked about each picture
OPEN_WEIGHT = 0.35  # weight of an open kind, beside the margins' weights
ANSWER_LENGTH = 6  # tokens, <eos> among them
IGNORE = -100  # a label at which no loss is taken
NO_ANSWER = (IGNORE,) * ANSWER_LENGTH
KINDS = (*YES_NO_KINDS, *OPEN_KINDS)


@dataclass
class QuestionBatch:
    """Q questions about each of B pictures.

    Attributes:
        wording: [B, Q] index into WORDINGS.
        margin: [B, Q] log-odds of Yes, NaN for open questions.
        answers: [B, Q, ANSWER_LENGTH] token ids of the answers to open questions, IGNORE elsewhere.
    """

    wording: Tensor
    margin: Tensor
    answers: Tensor


class Packer:
    """Packs a picture prefix and QUESTIONS question suffixes into one row.

    Attributes:
        tokenizer: of the VLM.
        prefix: [N] token ids of the picture prefix.
        image_positions: [IMAGE_TOKENS] where in the prefix the picture's tokens are.
        questions: [len(WORDINGS), suffix_length] token ids of each wording up to its answer, padded.
        question_lengths: [len(WORDINGS)] how many of those tokens are not padding.
        suffix_length: tokens of a suffix, that is of the longest question and the longest answer.
        mask: [1, 1, T, T] attention mask of a row of T tokens, added to the attention scores.
        positions: [1, T] position ids of a row.
        wordings: [len(KINDS), 60] indices of each kind's wordings, repeated to 60, which is divisible by any
            number from 1 to 6.
        signs: [len(WORDINGS)] of the wordings.
        yes, no, eos, pad: token ids.
    """

    def __init__(self) -> None:
        self.tokenizer = build_tokenizer()
        vocabulary = self.tokenizer.get_vocab()
        around = "<fake_token_around_image>"
        self.prefix = torch.tensor(
            self.token_ids(f"<bos><user>{around}<global-img>{'<image>' * IMAGE_TOKENS}{around}")
        )
        self.image_positions = self.prefix.eq(vocabulary["<image>"]).nonzero()[:, 0]
        questions = [self.token_ids(f"{wording.text}<assistant>") for wording in WORDINGS]
        self.question_lengths = torch.tensor([len(tokens) for tokens in questions])
        length = self.suffix_length = int(self.question_lengths.max()) + ANSWER_LENGTH - 1
        self.pad = vocabulary["<pad>"]
        self.questions = torch.tensor([tokens + [self.pad] * (length - len(tokens)) for tokens in questions])
        self.yes, self.no, self.eos = vocabulary["yes"], vocabulary["no"], vocabulary["<eos>"]
        n, total = len(self.prefix), len(self.prefix) + QUESTIONS * length
        segment = torch.cat([torch.full((n,), -1), torch.arange(QUESTIONS).repeat_interleave(length)])
        earlier = torch.ones(total, total).tril().bool()
        allowed = ((segment[None] == segment[:, None]) | (segment[None] == -1)) & earlier
        self.mask = torch.zeros(1, 1, total, total).masked_fill(~allowed, float("-inf"))
        suffix = torch.arange(length).repeat(QUESTIONS) + n
        self.positions = torch.cat([torch.arange(n), suffix])[None]
        by_kind = [[i for i, wording in enumerate(WORDINGS) if wording.kind == kind] for kind in KINDS]
        self.wordings = torch.tensor([[some[index % len(some)] for index in range(60)] for some in by_kind])
        self.signs = torch.tensor([wording.sign for wording in WORDINGS])
        self._answers: dict[str, tuple[int, ...]] = {}

    def token_ids(self, text: str) -> list[int]:
        """Return the token ids of a text, without <bos> and <eos>."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def answer(self, text: str) -> tuple[int, ...]:
        """Return the ANSWER_LENGTH token ids of an answer: <eos> at its end, then IGNORE."""
        if text not in self._answers:
            tokens = [*self.token_ids(text), self.eos]
            self._answers[text] = (*tokens, *NO_ANSWER[len(tokens) :])
        return self._answers[text]

    def pack(self, batch: QuestionBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Pack the suffixes of a batch, each [B, Q, suffix_length].

        Returns:
            Token ids; labels, each at the position that predicts it, IGNORE elsewhere; and whether the answer
            there is Yes or No, which has a soft target.
        """
        tokens = self.questions[batch.wording].clone()
        labels = torch.full_like(tokens, IGNORE)
        answers = batch.answers.clone()
        yes_no = ~batch.margin.isnan()
        likelier = torch.where(batch.margin > 0, self.yes, self.no)
        answers[..., 0] = torch.where(yes_no, likelier, answers[..., 0])
        answers[..., 1] = torch.where(yes_no, self.eos, answers[..., 1])
        # The positions that predict the answer's tokens.
        at = self.question_lengths[batch.wording][..., None] - 1 + torch.arange(ANSWER_LENGTH)
        labels.scatter_(2, at, answers)
        # A token is an input one position after the one that predicts it; the last token is never an input.
        inputs = answers[..., :-1].masked_fill(answers[..., :-1] == IGNORE, self.pad)
        tokens.scatter_(2, at[..., 1:], inputs)
        soft = torch.zeros_like(labels, dtype=torch.bool).scatter_(2, at[..., :1], yes_no[..., None])
        return tokens, labels, soft


def sample_questions(
    scene: Scene,
    margins: dict[str, Margin],
    shows_one_scene: Tensor,
    is_unclear: Tensor,
    packer: Packer,
    rng: torch.Generator,
) -> QuestionBatch:
    """Sample QUESTIONS different kinds for each picture by their weights, each in a random wording.

    Open questions are asked about pictures that show one scene, by ``shows_one_scene`` [B], and about those
    that are too corrupted to tell, by ``is_unclear`` [B], where their answer is UNCLEAR.
    """
    count = len(scene)
    weights = torch.stack([margins[kind].weight for kind in YES_NO_KINDS], 1)
    open_weights = OPEN_WEIGHT * (shows_one_scene | is_unclear)[:, None].expand(-1, len(OPEN_KINDS))
    picked = torch.multinomial(torch.cat([weights, open_weights], 1), QUESTIONS, generator=rng)  # [B, Q]
    unknown = torch.full((count, len(OPEN_KINDS)), float("nan"))
    yes = torch.stack([margins[kind].yes for kind in YES_NO_KINDS], 1)
    no = torch.stack([margins[kind].no for kind in YES_NO_KINDS], 1)
    yes, no = (torch.cat([odds, unknown], 1).gather(1, picked) for odds in (yes, no))
    choice = torch.rand(count, QUESTIONS, generator=rng)
    wording = packer.wordings[picked].gather(2, (choice * 60).long()[..., None])[..., 0]
    texts = open_answers(scene)
    unclear = is_unclear.tolist()

    def answer(row: int, number: int) -> tuple[int, ...]:
        if number < len(YES_NO_KINDS):
            return NO_ANSWER
        return packer.answer(UNCLEAR if unclear[row] else texts[KINDS[number]][row])

    answers = [[answer(row, number) for number in numbers] for row, numbers in enumerate(picked.tolist())]
    return QuestionBatch(wording, torch.where(packer.signs[wording] > 0, yes, no), torch.tensor(answers))
