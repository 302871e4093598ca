"""Faults of a data set that nnU-Net does not look for, and those it does: what each is called, means and asks for.

A rule is a row of `RULES`; the functions that look for it stand in the modules of its idea: files, geometry,
intensities, labels (by themselves), comparisons and class_order (against the other cases), copies, sides. An error
certainly is a fault; a warning is to be looked at.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from auvtool.errors import UsageError

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    """One fault that is looked for.

    Attributes:
        name: for people; the code is its key in RULES.
        severity: error, if it certainly is a fault.
        means: what is reported, on one line.
        cure: what to do about it, where a finding does not know better.
    """

    name: str
    severity: Severity
    means: str
    cure: str


@dataclass(frozen=True)
class Finding:
    """A fault that was found.

    Attributes:
        code: key of RULES.
        what: what was found, on one line.
        case_id: None: the data set as a whole.
        file: the file that is wrong, as one finds it from the data set's folder.
        class_name: of the class that is wrong.
        place: index of a slice in the file, along its slice axis, from 0.
        cure: what to do; the rule's own where it is empty.
    """

    code: str
    what: str
    case_id: str | None = None
    file: str | None = None
    class_name: str | None = None
    place: int | None = None
    cure: str = ""

    @property
    def rule(self) -> Rule:
        return RULES[self.code]


@dataclass(frozen=True)
class Source:
    """The file of a case that a rule looks at; `file` as one finds it from the data set's folder."""

    case_id: str
    file: str

    def finding(
        self, code: str, what: str, *, class_name: str | None = None, place: int | None = None, cure: str = ""
    ) -> Finding:
        return Finding(code, what, self.case_id, self.file, class_name, place, cure)


_LOOK = "look at the case in a viewer; correct the label, or leave the case out"

RULES: Mapping[str, Rule] = {
    "F001": Rule("dataset-json", "error", "dataset.json is not as nnU-Net wants it", "correct dataset.json"),
    "F002": Rule(
        "number-of-cases", "error", "numTraining is not the number of cases (nnU-Net stops)", "correct numTraining"
    ),
    "F003": Rule(
        "file-name",
        "error",
        "an image whose name has no channel number, or a case id that no file name can hold",
        "rename it to CASE_0000",
    ),
    "F004": Rule("missing-channel", "error", "a channel file is not there, or there is one too many", "add the file"),
    "F005": Rule("missing-label", "error", "an image without a label", "add the label, or take the image out"),
    "F006": Rule("missing-image", "error", "a label without an image", "add the image, or take the label out"),
    "F007": Rule(
        "other-ending", "warning", "a volume of another ending than file_ending, which nnU-Net ignores", "convert it"
    ),
    "F008": Rule(
        "unreadable", "error", "a file that cannot be read whole, or has no usable geometry", "get the file anew"
    ),
    "F009": Rule("missing-file", "error", "a file that dataset.json names is not there", "check its path"),
    "F010": Rule("number-of-channels", "error", "more or fewer channels than channel_names", "correct channel_names"),
    "F011": Rule("not-checked", "error", "the case could not be checked to its end", "look at the case"),
    "G001": Rule(
        "shape", "error", "a file's shape is not that of the case's first image", "give the file of this very scan"
    ),
    "G002": Rule(
        "spacing", "error", "a file's spacing is not that of the case's first image", "correct the header that is wrong"
    ),
    "G003": Rule("origin", "warning", "a file's origin is off by more than 1 % of a voxel", "look at both in a viewer"),
    "G004": Rule("direction", "warning", "a file's axes point elsewhere", "look at both in a viewer"),
    "G005": Rule(
        "lost-geometry",
        "warning",
        "unit spacing or an identity affine, where most other cases have a real one (or all have none)",
        "get the geometry from the original files",
    ),
    "G006": Rule(
        "orientation",
        "warning",
        "axes in another order or direction than in most other cases; nnU-Net does not reorient",
        "reorient image and label, or have nnU-Net do it (overwrite_image_reader_writer: NibabelIOWithReorient)",
    ),
    "G007": Rule(
        "spacing-range", "warning", "a spacing below 0.02 or above 30 mm", "check the unit of length of the header"
    ),
    "G008": Rule(
        "refused-header",
        "error",
        "a header that SimpleITK, and with it nnU-Net, refuses: axes that are not at right angles",
        "set overwrite_image_reader_writer: NibabelIO in dataset.json, or resample",
    ),
    "I001": Rule(
        "not-finite",
        "error",
        "NaN or infinite voxels (nnU-Net does not see them in NIfTI files, where SimpleITK reads 0)",
        "replace them by what the scanner gives for air",
    ),
    "I002": Rule("constant", "error", "all voxels of an image are equal", "get the image anew, or leave the case out"),
    "I003": Rule(
        "blank-slice", "warning", "a slice within the image that is all one value", "look at it; get the image anew"
    ),
    "I004": Rule(
        "repeated-slices",
        "warning",
        "slices that stand in the image twice, bit for bit",
        "convert the series anew, each slice once",
    ),
    "I005": Rule(
        "second-series",
        "error",
        "the volume is one series and the same once more along the slice axis",
        "convert the series anew, or cut the second half off",
    ),
    "I006": Rule("ct-units", "warning", "CT that is not in Hounsfield units", "convert it to Hounsfield units"),
    "I007": Rule(
        "ct-name",
        "warning",
        "looks like CT in Hounsfield units, but no channel is named CT",
        'name the channel "CT", so that nnU-Net normalises it as CT',
    ),
    "I008": Rule(
        "like-series",
        "warning",
        "the second half of the slices looks like the first: two series of one scan in a volume?",
        "look at the slices; cut the second series off",
    ),
    "L001": Rule(
        "not-whole", "error", "labels that are not whole numbers, or NaN", "resample labels with nearest neighbour"
    ),
    "L002": Rule("unknown-value", "error", "a label value that dataset.json does not name", "correct the label map"),
    "L003": Rule("empty-label", "warning", "no foreground at all", "label the case, or leave it out if it is an error"),
    "L004": Rule("few-voxels", "warning", "a class of at most 3 voxels, away from the border of the volume", _LOOK),
    "L005": Rule(
        "gap",
        "warning",
        "slices without the class between two that show the same piece of it (Dice at least 0.5)",
        "label these slices",
    ),
    "L006": Rule(
        "volume",
        "warning",
        "a class far larger or smaller than in the other cases (robust z of log volume beyond 6, factor of 4)",
        _LOOK,
    ),
    "L007": Rule(
        "pieces",
        "warning",
        "a class in several pieces, where 9 of 10 other cases have one, or in three times as many as any",
        _LOOK,
    ),
    "L008": Rule(
        "holes",
        "warning",
        "holes within slices of 2 % of a class or more, where 4 of 5 other cases have hardly any",
        "fill the holes",
    ),
    "L009": Rule(
        "abrupt-end",
        "warning",
        "a class that ends on a large slice (60 % of its largest), where it tapers off in 4 of 5 other cases",
        "label the slices beyond",
    ),
    "L010": Rule(
        "outside",
        "warning",
        "a class in padding of the image, or on dark voxels, where 4 of 5 other cases have it on tissue",
        _LOOK,
    ),
    "L011": Rule(
        "class-order",
        "warning",
        "two classes that lie the other way round than in 4 of 5 other cases, along any axis of the body",
        "look at the case; are two classes exchanged, or is the label turned?",
    ),
    "D001": Rule("duplicate-image", "error", "the same image in two cases, voxel for voxel", "keep one of the cases"),
    "D002": Rule(
        "duplicate-label", "warning", "the same label on two different images", "give each image its own label"
    ),
    "D003": Rule(
        "label-of-another", "warning", "a label that does not fit its image but that of another case", "exchange them"
    ),
    "D004": Rule(
        "left-right",
        "warning",
        "left and right change places against the other cases, or in all cases against their names",
        "look at the case; exchange the two classes, or correct the header",
    ),
    "D005": Rule("unused-class", "warning", "a class that no label holds", "take it out of dataset.json"),
    "D006": Rule(
        "equal-channels", "warning", "two channels of a case with the same voxels", "give each channel its own image"
    ),
}


def chosen_codes(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> frozenset[str]:
    """Codes of the rules that are looked for; a code, a name, or the beginning of codes (`G`, `L00`) names some.

    Raises:
        UsageError: there is no such rule, or none is left.
    """
    chosen = _named(select, "--select") if select else frozenset(RULES)
    left = chosen - _named(ignore, "--ignore")
    if not left:
        raise UsageError("--ignore: expected to leave a rule, got all of them ignored; name fewer")
    return left


def _named(names: Iterable[str], option: str) -> frozenset[str]:
    found: set[str] = set()
    for name in names:
        codes = {code for code, rule in RULES.items() if code.startswith(name.upper()) or rule.name == name.lower()}
        if not codes:
            raise UsageError(
                f"{option}: expected codes like F005, G or empty-label, got {name}; see auvtool info rules"
            )
        found |= codes
    return frozenset(found)
