from collections import Counter
from dataclasses import replace
from pathlib import Path

import phantoms
import pytest

from auvtool.cases import Case
from auvtool.corruption.kinds import KINDS
from auvtool.dataset import open_dataset
from auvtool.faults import split_copy_id
from auvtool.faulty_copies import choose_cases, fault_combinations, faulty_copies
from auvtool.faulty_copies import donors as donors_of

CASES = tuple(Case(f"c{n}", (Path(f"i{n}.nii.gz"),), Path(f"l{n}.nii.gz")) for n in range(12))
ALL = fault_combinations()


def faults_of(copies):
    return [(copy.fault.kind, copy.fault.level) for copy in copies]


def by_case(copies):
    found = {}
    for copy in copies:
        found.setdefault(split_copy_id(copy.case_id)[0], []).append(copy)
    return found


def test_combinations_are_all_levels_of_the_kinds_asked_for():
    assert fault_combinations(["holes", "other-label"]) == [
        *(("holes", level) for level in ("low", "medium", "high")),
        ("other-label", "high"),
    ]
    assert len(ALL) == sum(len(kind.levels) for kind in KINDS.values())


@pytest.mark.parametrize("seed", range(5))
def test_faults_are_dealt_evenly_and_none_twice_to_a_case(seed):
    copies = faulty_copies(CASES, ALL, n_copies=5, seed=seed)
    assert len(copies) == 12 * 5
    counts = Counter(faults_of(copies))
    assert set(counts) == set(ALL)
    assert max(counts.values()) - min(counts.values()) <= 1
    for case_id, of_case in by_case(copies).items():
        assert len(set(faults_of(of_case))) == 5
        assert [copy.case_id for copy in of_case] == [f"{case_id}~{kind}~{level}" for kind, level in faults_of(of_case)]
        assert {copy.images for copy in of_case} == {(Path(f"i{case_id[1:]}.nii.gz"),)}
        assert {copy.fault.seed for copy in of_case} == {seed}


def test_as_many_copies_as_faults_are_each_fault_once():
    few = ALL[:4]
    for of_case in by_case(faulty_copies(CASES, few, n_copies=4, seed=0)).values():
        assert sorted(faults_of(of_case)) == sorted(few)


@pytest.mark.parametrize("seed", range(5))
def test_fewer_copies_are_a_part_of_more(seed):
    few, many = (faulty_copies(CASES, ALL, n_copies=n, seed=seed) for n in (2, 5))
    assert set(few) < set(many)


def test_the_seed_deals_and_repeats():
    assert faulty_copies(CASES, ALL, n_copies=3, seed=1) == faulty_copies(CASES, ALL, n_copies=3, seed=1)
    assert faults_of(faulty_copies(CASES, ALL, n_copies=3, seed=1)) != faults_of(
        faulty_copies(CASES, ALL, n_copies=3, seed=2)
    )


def test_a_donor_is_another_case():
    donors = set()
    for seed in range(20):
        for copy in faulty_copies(CASES[:4], [("other-label", "high"), ("holes", "low")], n_copies=2, seed=seed):
            if copy.fault.kind == "other-label":
                assert copy.fault.donor != copy.label
                donors.add((copy.label, copy.fault.donor))
            else:
                assert copy.fault.donor is None
    assert len(donors) == 4 * 3  # every other case, sooner or later
    copies = faulty_copies(CASES[:4], [("other-label", "high"), ("holes", "low")], n_copies=2, seed=3)
    given = donors_of(copies, CASES)
    assert {copy.case_id: copy.fault.donor for copy in copies if copy.case_id in given} == {
        copy_id: next(case.label for case in CASES if case.case_id == case_id) for copy_id, case_id in given.items()
    }
    assert len(given) == 4
    (alone,) = faulty_copies(CASES[:1], [("other-label", "high")], n_copies=1, seed=0)
    assert alone.fault.donor is None


def test_faults_of_labels_come_first():
    for of_case in by_case(faulty_copies(CASES, ALL, n_copies=10, seed=0)).values():
        of = [KINDS[copy.fault.kind].of for copy in of_case]
        assert of == sorted(of, reverse=True)  # label, then image
        assert len(set(of)) == 2


def test_more_copies_than_faults_are_refused():
    with pytest.raises(ValueError, match="4 copies of a case for 3 faults"):
        faulty_copies(CASES, fault_combinations(["holes"]), n_copies=4, seed=0)


def test_cases_are_chosen_blindly_among_the_labelled(some_dataset):
    assert [case.case_id for case in choose_cases(some_dataset, None, seed=0)] == [case.case_id for case in CASES]
    assert choose_cases(some_dataset, 50, seed=0) == CASES
    chosen = [choose_cases(some_dataset, 5, seed=seed) for seed in range(8)]
    assert all(len(set(cases)) == 5 and set(cases) < set(CASES) for cases in chosen)
    assert all(list(cases) == sorted(cases, key=CASES.index) for cases in chosen)
    assert len(set(chosen)) > 4
    assert choose_cases(some_dataset, 5, seed=3) == chosen[3]


@pytest.fixture
def some_dataset(tmp_path):
    dataset = open_dataset(phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=1))
    return replace(dataset, cases=(*CASES, Case("zz", (Path("z.nii.gz"),), None)))
