"""A small language model of bytes, trained on a data set's own texts, for machines that have no other at hand."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from partita_core import PartitaError, atomic_write, hashed_seed
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from partita.data import SPEECH_AND_SOUND_TEXTS, TextTask, all_texts, check_texts, dataset_splits, open_dataset
from partita.data.messages import warn_once
from partita.data.text_coverage import tasks_per_row

# Of a sequence; what is longer is cut.
_MOST_BYTES = 512

# Texts that a loss is measured on, and how many at a time.
_MEASURED, _TOGETHER = 512, 64

_NO_TARGET = -100


class ByteLM(NamedTuple):
    """What training a language model came to.

    Attributes:
        parameters: how many it has.
        texts: different pairs of prompt and answer that it was trained on.
        train: bits for a byte of an answer and its end, given the prompt, on these.
        validation: likewise on the validation split; None without one.
    """

    parameters: int
    texts: int
    train: float
    validation: float | None


def train_byte_lm(
    data: str | os.PathLike,
    output: str | os.PathLike,
    *,
    texts: Sequence[TextTask] = SPEECH_AND_SOUND_TEXTS,
    steps: int = 300,
    seed: int = 0,
    batch_size: int = 16,
    width: int = 128,
    layers: int = 6,
    lr: float = 3e-3,
    echo: float = 0.5,
    progress: bool = True,
) -> ByteLM:
    """Trains a `LlamaForCausalLM` with a `ByT5Tokenizer` and saves both as a folder of transformers.

    It learns answers and their ends behind prompt and separator, as supervision through a frozen model puts them
    together. In a share of the sequences the answer also stands before the separator, where audio will: a model that
    had never found anything there would have learned to look past it.

    Args:
        data: a data set of audio or of latents; its texts are used, those of the split "train".
        output: the folder to make, whole or not at all.
        texts: which texts these are.
        steps: optimizer steps; the rate of learning falls over them by a cosine.
        seed: of weights and order.
        batch_size: texts in a step.
        width: of the model, in heads of 32.
        layers: of the model.
        lr: the highest rate of learning.
        echo: the share of sequences with the answer in the place of audio.
        progress: show a bar.

    Raises:
        PartitaError: there are no texts, or the folder is not free.
    """
    from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM

    output = Path(output)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise PartitaError(f"{output}: holds something already; name a folder that does not exist yet")
    pairs = _read_texts(data, "train", texts)
    if not pairs:
        raise PartitaError(f"{data}: no text applies to any row of its split 'train'")
    tokenizer: Any = ByT5Tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=4 * _MOST_BYTES,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(hashed_seed(seed, "byte_lm"))
        model: Any = LlamaForCausalLM(config)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.1)
    bar = tqdm(range(steps), desc="training on texts", unit="step", disable=not progress)
    for step in bar:
        generator = torch.Generator().manual_seed(hashed_seed(seed, "byte_lm", step))
        chosen = torch.randint(len(pairs), (batch_size,), generator=generator).tolist()
        echoed = (torch.rand(batch_size, generator=generator) < echo).tolist()
        ids, targets = _batch(tokenizer, [pairs[i] for i in chosen], echoed, device)
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 20) * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        loss = _loss(model, ids, targets).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()
    held_out = _read_texts(data, "validation", texts) if "validation" in dataset_splits(data) else []
    found = ByteLM(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        texts=len(set(pairs)),
        train=_bits(model, tokenizer, pairs, device),
        validation=_bits(model, tokenizer, held_out, device) if held_out else None,
    )
    with atomic_write(output) as aside:
        model.cpu().save_pretrained(aside)
        tokenizer.save_pretrained(aside)
    return found


def _read_texts(data: str | os.PathLike, split: str, texts: Sequence[TextTask]) -> list[tuple[str, str]]:
    dataset = open_dataset(data, split)
    check_texts(texts, dataset.column_names)
    columns = sorted(set().union(*(task.columns for task in texts)))
    rows: Any = dataset.select_columns(columns)
    without = sum(not tasks for tasks in tasks_per_row(dataset, texts))
    if 0 < without < len(rows):
        warn_once(f"{data}: {without} of {len(rows)} rows of the split {split!r} have no text and are left out")
    return list(all_texts(texts, rows))


def _batch(
    tokenizer: Any, pairs: Sequence[tuple[str, str]], echoed: Sequence[bool], device: str
) -> tuple[Tensor, Tensor]:
    """Ids, and those of answers and their ends, which are to be predicted, both `(batch, length)`."""
    from partita_representation import SEPARATOR

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    ids, targets = [], []
    for (prompt, answer), echo in zip(pairs, echoed):
        question = encode(prompt) + (encode(answer) if echo else []) + encode(SEPARATOR)
        row = torch.tensor([*question, *encode(answer), tokenizer.eos_token_id][:_MOST_BYTES])
        ids.append(row)
        targets.append(torch.where(torch.arange(len(row)) < len(question), _NO_TARGET, row))
    padded = (
        pad_sequence(rows, batch_first=True, padding_value=fill).to(device)
        for rows, fill in ((ids, tokenizer.pad_token_id), (targets, _NO_TARGET))
    )
    return next(padded), next(padded)


def _loss(model: Any, ids: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of each token that is to be predicted, in nats; what pads on the right is seen by none."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    wanted = targets[:, 1:]
    counted = wanted != _NO_TARGET
    return F.cross_entropy(logits[counted].float(), wanted[counted], reduction="none")


@torch.no_grad()
def _bits(model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], device: str) -> float:
    """Bits for a byte of the answers, on texts evenly spread over those given."""
    pairs = pairs[:: -(-len(pairs) // _MEASURED)]
    total, count = 0.0, 0
    for start in range(0, len(pairs), _TOGETHER):
        part = pairs[start : start + _TOGETHER]
        losses = _loss(model, *_batch(tokenizer, part, [False] * len(part), device))
        total += float(losses.sum())
        count += len(losses)
    return total / count / math.log(2)
