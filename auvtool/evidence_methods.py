"""The methods that read all evidence of a case, as `bench detect` judges them."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from auvtool.calibration import CrossFitted, Specimen, design, training_designs
from auvtool.detection_methods import Item
from auvtool.evidence import Evidence, evidence_of
from auvtool.quantifiers.deviation import deviation

_MOST_BYTES = 2**28  # of z that are kept


class EvidenceTable:
    """The evidence of all cases and copies, measured once and looked up in every draw.

    The methods judge the same data sets one after the other: z of the last ones are kept.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = tuple(items)
        self.evidence: Evidence = evidence_of([item.features for item in items])
        self._place = {item.features.case_id: place for place, item in enumerate(items)}
        self._known: dict[bytes, Float[np.ndarray, "item name class"]] = {}

    def z(self, items: Sequence[Item]) -> Float[np.ndarray, "item name class"]:
        """Robust z of a data set, one row an item."""
        places = np.array([self._place[item.features.case_id] for item in items])
        key = places.tobytes()
        if key not in self._known:
            found = self.evidence.z(places)
            while self._known and (len(self._known) + 1) * found.nbytes > _MOST_BYTES:
                del self._known[next(iter(self._known))]  # the oldest
            self._known[key] = found
        return self._known[key]


class DeviationMethod:
    """`score --quantifier deviation` of each data set; equal to it by construction, but for the looking up.

    With `without`, a control: the same without some groups of evidence.
    """

    of_data_set = True

    def __init__(self, table: EvidenceTable, *, name: str = "deviation", without: frozenset[str] = frozenset()) -> None:
        self.name = name
        self._table = table
        self._used = np.array([group not in without for group in table.evidence.groups])

    def values(self, items: Sequence[Item], *, held_out: frozenset[str]) -> Float[np.ndarray, " item"]:
        """See `Method`; nothing is trained."""
        groups = [group for group, used in zip(self._table.evidence.groups, self._used, strict=True) if used]
        return deviation(self._table.z(items)[:, self._used], groups)


class CalibratedMethod:
    """What `calibrate` says of cases it was not trained on, with faults that it was not trained on."""

    name = "calibrated"
    of_data_set = True

    def __init__(self, table: EvidenceTable, null_tests: Mapping[str, bool], *, seed: int = 0) -> None:
        self._table, self._seed = table, seed
        self._specimens = [
            Specimen(place, item.case_id, item.kind, item.donor)
            for place, item in enumerate(table.items)
            if item.kind is None or not null_tests[item.kind]
        ]
        self._families = {item.kind: item.family or item.kind for item in table.items if item.kind}
        self._designs: np.ndarray | None = None
        self._models: dict[frozenset[str], CrossFitted] = {}

    def values(self, items: Sequence[Item], *, held_out: frozenset[str]) -> Float[np.ndarray, " item"]:
        """See `Method`; from models that saw neither the case nor a kind that is held out."""
        evidence = self._table.evidence
        if self._designs is None:
            self._designs = training_designs(evidence, self._specimens, self._families, seed=self._seed)
        if held_out not in self._models:
            self._models[held_out] = CrossFitted(self._designs, self._specimens, held_out=held_out, seed=self._seed)
        designs = design(self._table.z(items), evidence.groups)
        return self._models[held_out].suspicion(designs, [item.case_id for item in items])
