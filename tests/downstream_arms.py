"""Ten cases of which four are dirty, their scores, and the plan of arms on them."""

from auvtool.benchmark import downstream_plan
from auvtool.benchmark.downstream_plan import Candidates, Plan, make_plan
from auvtool.schema import Row

CASES = tuple("abcdefghij")
KEY: list[Row] = [
    {"case": "b", "dirty": True, "kind": "noise", "dice": 1.0, "psnr": 20.0},
    {"case": "d", "dirty": True, "kind": "shift", "dice": 0.9, "psnr": None},
    {"case": "g", "dirty": True, "kind": "flip", "dice": 0.2, "psnr": None},
    {"case": "h", "dirty": True, "kind": "blur", "dice": 1.0, "psnr": 10.0},
    *({"case": case, "dirty": False, "kind": None, "dice": 1.0, "psnr": None} for case in "acefij"),
]


def score_rows(auv: dict[str, float | None], *, volumes: dict[str, float] | None = None) -> list[Row]:
    rows: list[Row] = []
    for case, value in auv.items():
        common: Row = {
            "case": case,
            "status": "ok",
            "quantifier": "auv",
            "method": "test",
            "value": value,
            "auv": value,
        }
        volume = (volumes or {}).get(case)
        common |= {"axis": "log", "volume_ml": volume}
        rows.append({**common, "class_id": 1, "class_name": "organ"})
        rows.append({**common, "class_id": None, "class_name": "all"})
    return rows


# b, d, g are above all clean cases; h, the fourth dirty one, looks the cleanest. Volumes fall from a to j.
AUV = dict(zip("abcdefghij", (0.1, 0.9, 0.2, 0.8, 0.3, 0.4, 0.7, 0.0, 0.5, 0.6), strict=True))
VOLUMES = {case: 100.0 - place for place, case in enumerate(CASES)}
SCORE = score_rows(AUV, volumes=VOLUMES)


def candidates(**scores: list[Row]) -> Candidates:
    return Candidates(CASES, tuple(downstream_plan.worst_first(KEY)), scores or {"auv": SCORE})


def plan(*arms: str, ratios=(0.7,), seeds=(0,), of: Candidates | None = None) -> Plan:
    return make_plan(of or candidates(), arms=arms, ratios=ratios, seeds=seeds)
