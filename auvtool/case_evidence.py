"""What a case shows beside its class maps: label, outline on the image, image, and the encoder's view of it.

```
/cases/<case id>/evidence/
  label_shape           (channel, statistic) float64, attribute columns (JSON); see label_shape
  label_boundary        (channel, statistic) float64, attribute columns; see label_boundary
  label_thumbnail       (channel, cell) float32; see thumbnail
  image_quality         (statistic,) float64, attribute columns; see image_quality
  image_thumbnail       (cell,) float32
  image_features        (feature,) float32: mean, then deviation, of the encoder's features over slices and places
```
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from auvtool.arrays import LabelMap, Volume
from auvtool.class_box import Box, class_boxes, class_mask
from auvtool.dataset_json import SemanticClass
from auvtool.image_quality import QUALITY_NAMES, image_quality
from auvtool.label_boundary import BOUNDARY_NAMES, label_boundaries
from auvtool.label_shape import SHAPE_NAMES, label_shapes
from auvtool.thumbnail import SIDE, standardised_thumbnail, thumbnail

N_CELLS = SIDE**3
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "label_shape": SHAPE_NAMES,
    "label_boundary": BOUNDARY_NAMES,
    "image_quality": QUALITY_NAMES,
}
OF_CHANNELS = ("label_shape", "label_boundary", "label_thumbnail")


@dataclass(frozen=True)
class CaseEvidence:
    """See the module; rows of channels that are absent, and everything of labels without prompts, are nan."""

    label_shape: Float[np.ndarray, "channel statistic"]
    label_boundary: Float[np.ndarray, "channel statistic"]
    label_thumbnail: Float[np.ndarray, "channel cell"]
    image_quality: Float[np.ndarray, " statistic"]
    image_thumbnail: Float[np.ndarray, " cell"]
    image_features: Float[np.ndarray, " feature"]


def case_evidence(
    image_features: Float[np.ndarray, " feature"],
    *,
    image: Volume,
    label: LabelMap | None,
    classes: tuple[SemanticClass, ...],
    spacing_mm: tuple[float, float, float],
    n_channels: int,
) -> CaseEvidence:
    """Evidence of a case.

    Args:
        image_features: of the encoder, see above.
        image: the channel that the extractor sees, as stored in the file.
        label: None without prompts.
        classes: of the label, in the order of the channels.
        spacing_mm: of the volume.
        n_channels: rows without a label.
    """
    if label is None:
        shapes = np.full((n_channels, len(SHAPE_NAMES)), np.nan)
        boundaries = np.full((n_channels, len(BOUNDARY_NAMES)), np.nan)
        thumbnails = np.full((n_channels, N_CELLS), np.nan, dtype=np.float32)
    else:
        values = [one.labels for one in classes]
        boxes = class_boxes(label, values)
        shapes = label_shapes(label, values, spacing_mm, boxes=boxes)
        boundaries = label_boundaries(image, label, values, boxes=boxes)
        thumbnails = _class_thumbnails(label, values, boxes)
    return CaseEvidence(
        label_shape=shapes,
        label_boundary=boundaries,
        label_thumbnail=thumbnails,
        image_quality=image_quality(image, spacing_mm),
        image_thumbnail=standardised_thumbnail(image),
        image_features=image_features.astype(np.float32),
    )


def _class_thumbnails(
    label: LabelMap, classes: Sequence[Sequence[int]], boxes: Sequence[Box | None]
) -> Float[np.ndarray, "channel cell"]:
    thumbnails = np.full((len(classes), N_CELLS), np.nan, dtype=np.float32)
    for row, values, box in zip(thumbnails, classes, boxes, strict=True):
        if box is not None:
            row[:] = thumbnail(class_mask(label[box], values), box=box, shape=label.shape)
    return thumbnails
