"""CLIP's tokens; the oracles are transformers' tokenizer with the same vocabulary, and open_clip's own."""

import gzip
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from auvtool.errors import InputError
from auvtool.extractors import clip_tokens, weights
from auvtool.extractors.clip_tokens import ClipTokens

TEXTS = [
    "A computerized tomography of a liver.",
    "A computerized tomography of a Right Kidney.",
    "A computerized tomography of a L5 vertebra's  body.",
    "A computerized tomography of a portal vein and splenic vein.",
    "A computerized tomography of a tumor_1 (T2w, 10mm).",
    "Niere rechts, gr\u00f6\u00dfer\nals \u80dd\u810f",
    "",
    "it's they'll 123 !!! ...",
]


@pytest.fixture(scope="module")
def tokens_of() -> ClipTokens:
    return ClipTokens()


@pytest.fixture(scope="module")
def transformers_tokenizer() -> Callable[[str], Any]:
    """CLIP's tokenizer of transformers, its vocabulary put together as CLIP's authors do."""
    from transformers import CLIPTokenizerFast

    path = weights.file_of_package(clip_tokens.VOCABULARY, what="CLIP's vocabulary").path
    with gzip.open(path, "rt", encoding="utf-8") as file:
        merges = file.read().splitlines()[1:48895]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [chr(256 + n) for n in range(256 - len(printable))]
    letters = [chr(n) for n in printable] + others
    names = [*letters, *(one + "</w>" for one in letters), *("".join(merge.split()) for merge in merges)]
    vocabulary = {name: number for number, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizerFast(vocab=vocabulary, merges=[tuple(merge.split()) for merge in merges])


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_transformers(tokens_of: ClipTokens, text: str, transformers_tokenizer) -> None:
    assert tokens_of(text) == transformers_tokenizer(text).input_ids


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_the_package(tokens_of: ClipTokens, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from open_clip.tokenizer import SimpleTokenizer
    expected = SimpleTokenizer().encode(text)
    assert tokens_of(text) == [49406, *expected, 49407]


def test_a_text_by_hand(tokens_of: ClipTokens) -> None:
    # "a photo of a cat" is the example that every description of CLIP gives.
    assert tokens_of("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_marks_of_start_and_end_are_words_when_a_user_writes_them(tokens_of: ClipTokens) -> None:
    assert tokens_of("a <|endoftext|> b").count(49407) == 1


def test_without_the_package_the_cure_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"CLIP's vocabulary, got none; pip install open_clip_torch$"):
        ClipTokens()
