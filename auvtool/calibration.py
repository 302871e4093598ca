"""A probability of being dirty, learnt from corrupt copies of a data set's own cases.

The cases themselves stand for the clean side, their copies for the dirty one. What the model sees of a case is how far
its evidence lies from what is usual in the data set, in magnitude only: a fault may push either way. A model judges
only cases that it was not trained on, and is measured on faults that it was not trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from auvtool.evidence import Evidence
from auvtool.quantifiers.deviation import group_deviations, most_deviant_class, overall_deviation

N_FOLDS = 3
_DEVIATION_WEIGHT = 3.0
_CONTAMINATION = 0.1  # share of copies in the data sets that training is drawn from


@dataclass(frozen=True)
class Specimen:
    """A case or a copy of one.

    Attributes:
        position: in the evidence.
        case_id: of the case.
        kind: of fault; None: the case itself.
        donor: the case whose label the copy carries, if it is another's.
    """

    position: int
    case_id: str
    kind: str | None = None
    donor: str | None = None


def design(z: Float[np.ndarray, "case name class"], groups: Sequence[str]) -> Float[np.ndarray, "case feature"]:
    """What a model sees: log(1 + |z|) of each name in its most deviant class, of each group and of all.

    0, as in the median case, where there is none.
    """
    deviant = most_deviant_class(z)
    of_groups = group_deviations(deviant, groups)
    seen = [np.log1p(np.abs(deviant)), of_groups, overall_deviation(of_groups)[:, None]]
    return np.concatenate([np.where(np.isnan(part), 0.0, part) for part in seen], axis=1)


def training_designs(
    evidence: Evidence, specimens: Sequence[Specimen], families: Mapping[str, str], *, seed: int
) -> Float[np.ndarray, "specimen feature"]:
    """The design of each specimen in the data set as it would be found.

    That of a case comes from the data set as it is, that of a copy from data sets in which a tenth of the cases are
    replaced by their copies with faults of the same family: no fault of another family moves what is usual there.
    """
    clean = {one.case_id: one.position for one in specimens if one.kind is None}
    members = np.array(list(clean.values()))
    place = {case_id: index for index, case_id in enumerate(clean)}
    found: list[Any] = [None] * len(specimens)
    for index, row in zip(
        (i for i, one in enumerate(specimens) if one.kind is None),
        design(evidence.z(members), evidence.groups),
        strict=True,
    ):
        found[index] = row
    size = max(1, round(_CONTAMINATION * len(members)))
    waiting = [i for i, one in enumerate(specimens) if one.kind is not None]
    waiting = [waiting[i] for i in np.random.default_rng([seed, 2]).permutation(len(waiting))]
    while waiting:
        batch: dict[str, int] = {}
        family = families[str(specimens[waiting[0]].kind)]
        for index in waiting:
            same = families[str(specimens[index].kind)] == family
            if same and len(batch) < size and specimens[index].case_id not in batch:
                batch[specimens[index].case_id] = index
        chosen = members.copy()
        for case_id, index in batch.items():
            chosen[place[case_id]] = specimens[index].position
        rows = design(evidence.z(chosen), evidence.groups)
        for case_id, index in batch.items():
            found[index] = rows[place[case_id]]
        taken = set(batch.values())
        waiting = [index for index in waiting if index not in taken]
    return np.stack(found)


def case_folds(case_ids: Sequence[str], *, seed: int) -> dict[str, int]:
    """A fold for each case, drawn blindly; a case and its copies are always in one."""
    unique = sorted(set(case_ids))
    order = np.random.default_rng([seed, 3]).permutation(len(unique))
    return {unique[index]: place % N_FOLDS for place, index in enumerate(order)}


class DirtModel:
    """Randomised trees on designs, together with the deviation.

    The trees know the faults that they have seen, the deviation knows none and misses none that is large enough: the
    suspicion of a case is logit(share of votes for dirty) + 3 deviation, which spread about alike.
    """

    def __init__(self, designs: Float[np.ndarray, "specimen feature"], dirty: Bool[np.ndarray, " specimen"]) -> None:
        from sklearn.ensemble import ExtraTreesClassifier

        self._trees = ExtraTreesClassifier(
            200, min_samples_leaf=3, max_features=0.2, class_weight="balanced", random_state=0
        ).fit(designs, dirty)

    def suspicion(self, designs: Float[np.ndarray, "case feature"]) -> Float[np.ndarray, " case"]:
        """High = dirty; without unit."""
        if len(self._trees.classes_) < 2:  # every kind was held out: nothing is known but the deviation
            return np.asarray(_DEVIATION_WEIGHT * designs[:, -1])
        votes = np.clip(self._trees.predict_proba(designs)[:, 1], 0.01, 0.99)
        return np.asarray(np.log(votes / (1.0 - votes)) + _DEVIATION_WEIGHT * designs[:, -1])


class CrossFitted:
    """A model a fold, trained on the other folds and without some kinds of fault.

    A copy with the label of a case of the fold is left out too: that label would have been seen, and called dirty.
    """

    def __init__(
        self,
        designs: Float[np.ndarray, "specimen feature"],
        specimens: Sequence[Specimen],
        *,
        held_out: frozenset[str] = frozenset(),
        seed: int,
    ) -> None:
        self._folds = case_folds([one.case_id for one in specimens], seed=seed)
        self._models = {}
        for fold in range(N_FOLDS):
            used = [
                index
                for index, one in enumerate(specimens)
                if fold not in (self._folds[one.case_id], self._folds.get(one.donor or "")) and one.kind not in held_out
            ]
            dirty = np.array([specimens[index].kind is not None for index in used])
            self._models[fold] = DirtModel(designs[used], dirty)

    def suspicion(
        self, designs: Float[np.ndarray, "case feature"], case_ids: Sequence[str]
    ) -> Float[np.ndarray, " case"]:
        """For each case what the model says that has not seen it."""
        folds = np.array([self._folds[case_id] for case_id in case_ids])
        found = np.full(len(designs), np.nan)
        for fold, model in self._models.items():
            if (folds == fold).any():
                found[folds == fold] = model.suspicion(designs[folds == fold])
        return found


@dataclass(frozen=True)
class ProbabilityScale:
    """Suspicion to probability: logit P = intercept + slope * suspicion, at a share `prior` of dirty cases."""

    intercept: float
    slope: float

    @classmethod
    def fit(
        cls, suspicion: Float[np.ndarray, " specimen"], dirty: Bool[np.ndarray, " specimen"], *, prior: float
    ) -> "ProbabilityScale":
        """From what models say that had seen neither the case nor its kind of fault (Platt's scaling).

        The cases of a data set are then judged by models that have seen all kinds: to what was learnt from, the
        probability is a careful one.

        Cases and copies are weighted so that a share `prior` of the weight is dirty.
        """
        from sklearn.linear_model import LogisticRegression

        weight = np.where(dirty, prior / dirty.sum(), (1.0 - prior) / (~dirty).sum()) * len(suspicion)
        fitted = LogisticRegression(C=1e3).fit(suspicion[:, None], dirty, sample_weight=weight)
        return cls(float(fitted.intercept_[0]), float(fitted.coef_[0, 0]))

    def probability(self, suspicion: Float[np.ndarray, " case"]) -> Float[np.ndarray, " case"]:
        return np.asarray(1.0 / (1.0 + np.exp(-(self.intercept + self.slope * suspicion))))


def suspicion_of_unseen_kinds(
    designs: Float[np.ndarray, "specimen feature"],
    specimens: Sequence[Specimen],
    families: Mapping[str, str],
    *,
    seed: int,
) -> dict[str, Float[np.ndarray, " specimen"]]:
    """Family -> suspicion by models that saw no fault of that family, for the cases and for the copies of that family.

    nan for the copies of other families.
    """
    found = {}
    for family in sorted({families[one.kind] for one in specimens if one.kind is not None}):
        held_out = frozenset(kind for kind, of in families.items() if of == family)
        judged = [i for i, one in enumerate(specimens) if one.kind is None or one.kind in held_out]
        model = CrossFitted(designs, specimens, held_out=held_out, seed=seed)
        suspicion = np.full(len(specimens), np.nan)
        suspicion[judged] = model.suspicion(designs[judged], [specimens[i].case_id for i in judged])
        found[family] = suspicion
    return found
