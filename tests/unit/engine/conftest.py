"""Tokenizers of public models, with their chat templates."""

from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import PUBLIC_MODELS, write_tokenizer


@pytest.fixture(scope="session", params=PUBLIC_MODELS)
def public_model(request: pytest.FixtureRequest) -> str:
    """Its name in PUBLIC_MODELS."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def public_tokenizer(public_model: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As the checkpoint's AutoTokenizer loads it."""
    from transformers import AutoTokenizer

    folder: Path = tmp_path_factory.mktemp(public_model)
    write_tokenizer(public_model, folder)
    return AutoTokenizer.from_pretrained(folder)
