"""Array types with their shapes.

`d` is the slice axis, `h` and `w` the in-plane axes, `class` one map a class (or a decoder channel), `rank` the number
of singular values, `feature` the channels of an extractor's last decoded layer.
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Integer

Volume: TypeAlias = Float[np.ndarray, "d h w"]
LabelMap: TypeAlias = Integer[np.ndarray, "d h w"]
Logits: TypeAlias = Float[np.ndarray, "class d h w"]
Features: TypeAlias = Float[np.ndarray, "feature d h w"]
Spectrum: TypeAlias = Float[np.ndarray, "*class rank"]
Scale: TypeAlias = Float[np.ndarray, "*class"]
