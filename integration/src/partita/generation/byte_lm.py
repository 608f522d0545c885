"""Training of a small byte-level language model on a data set's texts, for tests and demos without a pretrained one."""

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

# Maximum length of a sequence; longer ones are truncated.
_MAX_BYTES = 512

# Number of texts that a loss is measured on, and texts per batch.
_EVAL_TEXTS, _EVAL_BATCH = 512, 64

_NO_TARGET = -100


class ByteLM(NamedTuple):
    """Result of training a language model.

    Attributes:
        parameters: number of parameters.
        texts: number of different pairs of prompt and answer in training.
        train: bits per byte of answers and their ends, given the prompt, on the training texts.
        validation: bits per byte on the validation split; None without one.
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
    """Train a `LlamaForCausalLM` with a `ByT5Tokenizer` and save both as a folder of transformers.

    The model learns answers and their ends after prompt and separator, the format of supervision through a frozen
    model. In a share of the sequences the answer also precedes the separator, at the position of audio: otherwise the
    model would learn to ignore that position.

    Args:
        data: data set of audio or latents; the texts of its split "train" are used.
        output: folder to create, atomically.
        texts: text tasks of the data set.
        steps: optimizer steps; the learning rate decays over them by a cosine.
        seed: random seed of weights and order.
        batch_size: texts per step.
        width: width of the model, with heads of 32.
        layers: transformer layers.
        lr: maximum learning rate.
        echo: share of sequences with the answer at the position of audio.
        progress: show a progress bar.

    Raises:
        PartitaError: there are no texts, or the folder is not empty.
    """
    from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM

    output = Path(output)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise PartitaError(f"{output} is not empty; choose a folder that does not exist yet")
    pairs = _read_texts(data, "train", texts)
    if not pairs:
        raise PartitaError(f"{data}: no text task applies to any row of the split 'train'")
    tokenizer: Any = ByT5Tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=4 * _MAX_BYTES,
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
    """Ids, and the ids to predict, which are those of answers and their ends, both `(batch, length)`."""
    from partita_representation import SEPARATOR

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    ids, targets = [], []
    for (prompt, answer), echo in zip(pairs, echoed):
        question = encode(prompt) + (encode(answer) if echo else []) + encode(SEPARATOR)
        row = torch.tensor([*question, *encode(answer), tokenizer.eos_token_id][:_MAX_BYTES])
        ids.append(row)
        targets.append(torch.where(torch.arange(len(row)) < len(question), _NO_TARGET, row))
    padded = (
        pad_sequence(rows, batch_first=True, padding_value=fill).to(device)
        for rows, fill in ((ids, tokenizer.pad_token_id), (targets, _NO_TARGET))
    )
    return next(padded), next(padded)


def _loss(model: Any, ids: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats of each id to predict; padding on the right is never attended to."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    expected = targets[:, 1:]
    counted = expected != _NO_TARGET
    return F.cross_entropy(logits[counted].float(), expected[counted], reduction="none")


@torch.no_grad()
def _bits(model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], device: str) -> float:
    """Bits per byte of the answers, on texts evenly spread over those given."""
    pairs = pairs[:: -(-len(pairs) // _EVAL_TEXTS)]
    total, count = 0.0, 0
    for start in range(0, len(pairs), _EVAL_BATCH):
        part = pairs[start : start + _EVAL_BATCH]
        losses = _loss(model, *_batch(tokenizer, part, [False] * len(part), device))
        total += float(losses.sum())
        count += len(losses)
    return total / count / math.log(2)
