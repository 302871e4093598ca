"""CLIP's tokens of a text (Radford et al. 2021): byte pairs of the vocabulary that the package open_clip_torch carries.

The vocabulary is OpenAI's own file, known by its SHA-256; the package itself is not imported, and nothing is
downloaded.
"""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

from auvtool.errors import InputError
from auvtool.extractors.facts import WeightsInPackage
from auvtool.extractors.weights import file_of_package

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = WeightsInPackage(
    module="open_clip",
    distribution="open_clip_torch",
    path="bpe_simple_vocab_16e6.txt.gz",
    sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
)
_WORD_END = "</w>"
# The file has a line of its version, then pairs in the order in which they are merged, more than CLIP uses.
_N_TOKENS = 49408
_N_MERGES = _N_TOKENS - 2 * 256 - 2  # bytes, bytes that end a word, start and end of the text
_START, _END = _N_TOKENS - 2, _N_TOKENS - 1
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTokens:
    """From a text to the numbers of its tokens, between those of start and end.

    Raises:
        InputError: the package of the vocabulary, or tokenizers, is missing or has another file.
    """

    def __init__(self) -> None:
        self._tokenizer = _byte_pairs(file_of_package(VOCABULARY, what="CLIP's vocabulary").path)

    def __call__(self, text: str) -> list[int]:
        """Numbers of the tokens; the text is read without case, and blanks are one."""
        return [_START, *self._tokenizer.encode(text).ids, _END]


def _byte_pairs(path: Path) -> "Tokenizer":
    try:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    except ImportError as error:
        raise InputError(
            "tokenizers", expected="the package", found="none", cure="pip install 'auvtool[models]'"
        ) from error
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()[1 : _N_MERGES + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # a printable character for each byte
    tokens = [*letters, *(letter + _WORD_END for letter in letters), *(first + second for first, second in merges)]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)}, merges=merges, end_of_word_suffix=_WORD_END
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer
