"""Fixture: a tiny byte-level language model, trained on three words and saved as a folder."""

import os

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"
WORDS = ("do", "re", "mi")


@pytest.fixture(scope="session")
def byte_lm(tmp_path_factory):
    """Folder of a tiny `LlamaForCausalLM` with `ByT5Tokenizer`, trained on "say: ", a line break and a word."""
    from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("byte_lm")
    tokenizer = ByT5Tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=384, initializer_range=0.2, **sizes, **ids))
        batch = tokenizer([f"say: \n{word}" for word in WORDS], return_tensors="pt").input_ids
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(100):
            optimizer.zero_grad()
            model(input_ids=batch, labels=batch).loss.backward()
            optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
