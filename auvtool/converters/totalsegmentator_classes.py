"""Names of the structures of the TotalSegmentator data set, versions 1 and 2, in the order of their label values.

The lists are `total_v1` and `total` of the public repository (wasserth/TotalSegmentator, map_to_binary.py).
"""

_VERTEBRAE = (
    *(f"vertebrae_L{number}" for number in range(5, 0, -1)),
    *(f"vertebrae_T{number}" for number in range(12, 0, -1)),
    *(f"vertebrae_C{number}" for number in range(7, 0, -1)),
)
_RIBS = tuple(f"rib_{side}_{number}" for side in ("left", "right") for number in range(1, 13))
_LUNG_LOBES = tuple(f"lung_{lobe}" for lobe in ("upper_lobe_left", "lower_lobe_left")) + tuple(
    f"lung_{lobe}_lobe_right" for lobe in ("upper", "middle", "lower")
)


def _both_sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}_{side}" for name in names for side in ("left", "right"))


_FIRST = ("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach")
_ADRENAL_GLANDS = ("adrenal_gland_right", "adrenal_gland_left")
_ILIAC_VESSELS = _both_sides("iliac_artery", "iliac_vena")
_LIMBS = _both_sides("humerus", "scapula", "clavicula", "femur", "hip")
_MUSCLES = _both_sides("gluteus_maximus", "gluteus_medius", "gluteus_minimus", "autochthon", "iliopsoas")

V1 = (
    *_FIRST,
    "aorta",
    "inferior_vena_cava",
    "portal_vein_and_splenic_vein",
    "pancreas",
    *_ADRENAL_GLANDS,
    *_LUNG_LOBES,
    *_VERTEBRAE,
    "esophagus",
    "trachea",
    "heart_myocardium",
    "heart_atrium_left",
    "heart_ventricle_left",
    "heart_atrium_right",
    "heart_ventricle_right",
    "pulmonary_artery",
    "brain",
    *_ILIAC_VESSELS,
    "small_bowel",
    "duodenum",
    "colon",
    *_RIBS,
    *_LIMBS,
    "sacrum",
    "face",
    *_MUSCLES,
    "urinary_bladder",
)

V2 = (
    *_FIRST,
    "pancreas",
    *_ADRENAL_GLANDS,
    *_LUNG_LOBES,
    "esophagus",
    "trachea",
    "thyroid_gland",
    "small_bowel",
    "duodenum",
    "colon",
    "urinary_bladder",
    "prostate",
    "kidney_cyst_left",
    "kidney_cyst_right",
    "sacrum",
    "vertebrae_S1",
    *_VERTEBRAE,
    "heart",
    "aorta",
    "pulmonary_vein",
    "brachiocephalic_trunk",
    "subclavian_artery_right",
    "subclavian_artery_left",
    "common_carotid_artery_right",
    "common_carotid_artery_left",
    *_both_sides("brachiocephalic_vein"),
    "atrial_appendage_left",
    "superior_vena_cava",
    "inferior_vena_cava",
    "portal_vein_and_splenic_vein",
    *_ILIAC_VESSELS,
    *_LIMBS,
    "spinal_cord",
    *_MUSCLES,
    "brain",
    "skull",
    *_RIBS,
    "sternum",
    "costal_cartilages",
)
