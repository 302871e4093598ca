"""What can be measured of a case: the paper's scale, what it compares with, and the controls; named in one table.

Every quantifier is a number a class (or a case). `auv` turns it into an AUV: its coordinate on the axis of eq. 6 is
the number or its logarithm, and its side says which end is uncertain. Their mathematics stand in the modules beside.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

QuantifierName: TypeAlias = Literal[
    "auv",
    "variance",
    "feature-variance",
    "mahalanobis",
    "relative-mahalanobis",
    "fisher",
    "eaoa",
    "semantic-scale",
    "entropy",
    "effective-rank",
    "predicted-dice",
    "agreement",
    "deviation",
    "plain-deviation",
    "volume",
    "depth",
    "random",
]


@dataclass(frozen=True)
class Quantifier:
    """What is known of a quantifier without computing it.

    Attributes:
        high: whether a high value means a certain or an uncertain case.
        axis: whether eq. 6 takes the value's logarithm or the value.
        of_classes: it has a value a class; otherwise one a case only.
        of_data_set: a case's value depends on the other cases, so that two data sets do not compare.
        spectral: it is taken from the spectra of the class maps, whose kind can be chosen.
        measures: one line for the help and the README.
    """

    high: Literal["certain", "uncertain"]
    axis: Literal["log", "linear"]
    measures: str
    of_classes: bool = True
    of_data_set: bool = False
    spectral: bool = False


# In the column quantifier of what `calibrate` writes, which is learnt and not measured by `score`.
CALIBRATED = "calibrated"

QUANTIFIERS: dict[QuantifierName, Quantifier] = {
    "auv": Quantifier("certain", "log", "semantic perception scale S, eqs 4 and 5", spectral=True),
    "variance": Quantifier("uncertain", "log", "variance of the input image in the class region"),
    "feature-variance": Quantifier("uncertain", "log", "trace of the covariance of the decoder's features there"),
    "mahalanobis": Quantifier(
        "uncertain", "log", "distance of the class-pooled features from the class mean, leave one out", of_data_set=True
    ),
    "relative-mahalanobis": Quantifier(
        "uncertain", "linear", "the same less the distance from the mean of all classes", of_data_set=True
    ),
    "fisher": Quantifier(
        "uncertain", "log", "mean trigamma of the class's evidence in its region (of I-EDL's Fisher term)"
    ),
    "eaoa": Quantifier(
        "uncertain",
        "linear",
        "mean log(1 - largest probability) of the foreground (EAOA's aleatoric part)",
        of_classes=False,
    ),
    "semantic-scale": Quantifier("certain", "linear", "log-volume of the decoder's features in the class region"),
    "entropy": Quantifier("uncertain", "linear", "mean entropy of a voxel's probability in the class region"),
    "effective-rank": Quantifier("certain", "log", "exp of the entropy of the singular values, control", spectral=True),
    "predicted-dice": Quantifier("certain", "linear", "Dice of a cross-validated prediction (--metrics)"),
    "agreement": Quantifier("certain", "linear", "Dice of the extractor's prompted mask with the label"),
    "deviation": Quantifier(
        "uncertain",
        "linear",
        "how far all evidence (label, outline, image, features, spectra) lies from what is usual in the data set",
        of_data_set=True,
    ),
    "plain-deviation": Quantifier(
        "uncertain",
        "linear",
        "the same of label, outline and image alone, without anything that a foundation model sees",
        of_data_set=True,
    ),
    "volume": Quantifier("certain", "log", "control: volume of the class region; large = certain"),
    "depth": Quantifier("certain", "log", "control: number of decoded slices; many = certain"),
    "random": Quantifier("uncertain", "linear", "control: a number drawn blindly", of_data_set=True),
}
