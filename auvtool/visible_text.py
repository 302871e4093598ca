"""Text of unknown origin, made safe to show: what moves a cursor or turns a line round is written out as an escape.

Case ids, class names and what a library says of a file come from strangers. A terminal obeys escape sequences, and a
bidirectional override shows a name as another one.
"""

import re

# Control characters but line feed and tab, halves of a surrogate pair, line separators, bidirectional formatting; and
# what has no width, by which two names that look alike differ; not the joiners that Persian and Indic words are
# written with.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\ud800-\udfff\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """`text` with every hidden character as an escape (`\\x1b`, `\\u202e`); line feeds and tabs stay."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def has_hidden(text: str) -> bool:
    """Whether `visible` would change `text`, or it has line feeds or tabs."""
    return "\n" in text or "\t" in text or _HIDDEN.search(text) is not None
