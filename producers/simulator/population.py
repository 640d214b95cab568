"""The true people: families with their children, names, homes and risks, as no supplier ever sees them whole.

Half the families are the cohort (participants, and comparison families that wait); the other half are everyone else
that the departments know. Participants are worse off to begin with (`risk`, and so the criteria), which is what makes
a plain comparison of the two wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from producers.simulator.config import (
    COUNCILS,
    FIRST_DAY,
    FIRST_START,
    LAST_START,
    NEVER,
    Bools,
    Config,
    Floats,
    Ints,
    Texts,
    day,
    days_of_months,
    parts_of_days,
)
from producers.simulator.names import ORIGINS, draw_forenames, draw_surnames
from producers.simulator.places import draw_postcodes

CRITERIA = ("crime", "education", "children", "work", "abuse", "health")
OUTSIDE, PARTICIPANT, COMPARISON = 0, 1, 2
STATUS = ("", "participant", "comparison")
SELECTION = 0.4
"""How much higher the risk of participants is, in standard deviations between families."""
PARENT, PARTNER, CHILD = 0, 1, 2

_ORIGIN_SHARES = ((0.62, 0.12, 0.18, 0.08), (0.84, 0.08, 0.04, 0.04))
"""Of `ORIGINS`: the first council is the most mixed."""
_PARTICIPANTS = 0.55
_COUPLES = 0.5
_MARRIED = 0.55
_CHILDREN = (0.36, 0.34, 0.18, 0.08, 0.04)
"""Families by number of children, 1 to 5."""
_STEP = 0.18
_TWINS = 0.025
_IDENTICAL_SEX = 0.68
_SAME_INITIAL = 0.04
_SON_OF_HIS_NAME = 0.06
_DOUBLE_BARRELLED = 0.04
_MIDDLE_NAMES = 0.62
_TWO_MIDDLE_NAMES = 0.12
_NAME_CHANGES = 0.09
_MOVES = 0.30
_LEAVES_COUNCIL = 0.2
_TWO_COUNCILS = 0.5
"""Of the cohort families that moved from one council to another, those that both councils list."""
_STRANGERS, _FATHERS, _TWINS_OUTSIDE = 0.004, 0.003, 0.002
"""Persons outside who are easily taken for one of the cohort, per person of the cohort."""
_LAST_BIRTH = day(2015, 8, 31)


@dataclass(frozen=True)
class Families:
    """One row per family; the first half are the cohort."""

    origin: Ints
    council: Ints
    second_council: Ints
    """Also lists the family; -1 for none."""
    status: Ints
    start_month: Ints
    start_day: Ints
    risk: Floats
    criteria: Bools
    couple: Bools
    step: Bools
    postcode: Texts
    earlier_postcode: Texts
    """"" for those who stayed."""
    moved: Ints
    """Day of the move."""

    def __len__(self) -> int:
        """Number of families."""
        return len(self.origin)


@dataclass(frozen=True)
class Decoys:
    """Difficulties that are about persons, not about one record: `person` is often taken for `other` (-1: nobody)."""

    kind: str
    person: Ints
    other: Ints


@dataclass
class Persons:
    """One row per person, family by family."""

    number: Ints
    """The true person number; says nothing of where the person stands here."""
    family: Ints
    role: Ints
    male: Bools
    born: Ints
    forename: Texts
    middle_names: Texts
    surname: Texts
    other_surname: Texts
    """Before or after marriage; "" for most."""
    twin: Bools
    step: Bools
    decoys: list[Decoys] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of persons."""
        return len(self.family)


def families(config: Config) -> Families:
    """The families of both halves."""
    rng = config.stream("families")
    n = 2 * config.families
    cohort = np.arange(n) < config.families
    council = rng.integers(0, len(COUNCILS), n)
    council[~cohort & (rng.random(n) < 0.35)] = -1
    origin = np.where(council == 0, _pick(rng, _ORIGIN_SHARES[0], n), _pick(rng, _ORIGIN_SHARES[1], n))
    status = np.where(cohort, np.where(rng.random(n) < _PARTICIPANTS, PARTICIPANT, COMPARISON), OUTSIDE)
    risk = rng.normal(0.0, 1.0, n) + SELECTION * (status == PARTICIPANT) - 0.3 * ~cohort
    start_month = np.where(cohort, rng.integers(FIRST_START, LAST_START + 1, n), NEVER)
    start_day = days_of_months(start_month) + rng.integers(0, 28, n)

    moves = rng.random(n) < _MOVES
    leaves = moves & (council >= 0) & (rng.random(n) < _LEAVES_COUNCIL)
    earlier_council = np.where(leaves, (council + 1) % len(COUNCILS), council)
    both = leaves & cohort & (rng.random(n) < _TWO_COUNCILS)
    earlier = draw_postcodes(rng, earlier_council)
    earlier[~moves] = ""
    return Families(
        origin=origin,
        council=council,
        second_council=np.where(both, earlier_council, -1),
        status=status,
        start_month=start_month,
        start_day=start_day,
        risk=risk,
        criteria=_criteria(rng, risk),
        couple=rng.random(n) < _COUPLES,
        step=rng.random(n) < _STEP,
        postcode=draw_postcodes(rng, council),
        earlier_postcode=earlier,
        moved=rng.integers(FIRST_DAY, day(2017), n),
    )


def _criteria(rng: np.random.Generator, risk: Floats) -> Bools:
    """Two at least, likelier with risk."""
    common = np.array([-0.4, 0.7, 0.0, 0.5, -0.6, -0.2])
    pull = common + 0.45 * risk[:, None] + rng.logistic(0.0, 1.0, (len(risk), len(CRITERIA)))
    second = np.sort(pull, axis=1)[:, -2]
    return np.asarray(pull >= np.minimum(second, 0.0)[:, None], bool)


def _pick(rng: np.random.Generator, shares: tuple[float, ...], n: int) -> Ints:
    at = np.searchsorted(np.cumsum(shares), rng.random(n), side="right")
    return np.minimum(at, len(shares) - 1).astype(np.int64)


def persons(config: Config, of: Families) -> Persons:
    """The people of the families."""
    rng = config.stream("persons")
    n = len(of)
    births, twin = _births(rng, n)
    lives = births != 0
    oldest = births[:, 0]
    mother_age = np.clip(rng.normal(24.0, 5.0, n), 16.0, 40.0)
    partner_gap = np.clip(rng.normal(2.5, 4.0, n), -8.0, 20.0)
    parent_born = (oldest - mother_age * 365.25).astype(np.int64) - rng.integers(0, 365, n)
    partner_born = np.minimum(parent_born - (partner_gap * 365.25).astype(np.int64), oldest - 16 * 366)

    born = np.column_stack([parent_born, partner_born, births])
    there = np.column_stack([np.ones(n, bool), of.couple, lives])
    role = np.broadcast_to(np.array([PARENT, PARTNER, *[CHILD] * births.shape[1]]), born.shape)
    family = np.broadcast_to(np.arange(n)[:, None], born.shape)
    twins = np.column_stack([np.zeros((n, 2), bool), twin])
    order = np.broadcast_to(np.arange(born.shape[1]) - 2, born.shape)

    people = Persons(
        number=np.empty(0, np.int64),
        family=family[there].astype(np.int64),
        role=role[there].astype(np.int64),
        male=np.empty(0, bool),
        born=born[there],
        forename=np.empty(0, object),
        middle_names=np.empty(0, object),
        surname=np.empty(0, object),
        other_surname=np.empty(0, object),
        twin=twins[there],
        step=np.zeros(0, bool),
    )
    count = len(people)
    people.number = rng.permutation(count) + 1
    people.male = _sexes(rng, people)
    _give_surnames(rng, of, people, order[there])
    _give_forenames(rng, of, people)
    _plant_outside(rng, of, people)
    _list_decoys(of, people)
    return people


def _births(rng: np.random.Generator, n: int) -> tuple[Ints, Bools]:
    """Days of birth of up to five children, the oldest first, 0 where there is none; who is a twin."""
    most = len(_CHILDREN)
    many = _pick(rng, _CHILDREN, n) + 1
    oldest = day(2013, 7, 1) - (rng.triangular(0.0, 12.0, 18.5, n) * 365.25).astype(np.int64)
    gaps = (365.0 * (1.1 + rng.exponential(1.9, (n, most - 1)))).astype(np.int64)
    twin_of_previous = rng.random((n, most - 1)) < _TWINS
    gaps[twin_of_previous] = 0
    births = oldest[:, None] + np.column_stack([np.zeros(n, np.int64), np.cumsum(gaps, axis=1)])
    births[(np.arange(most) >= many[:, None]) | (births > _LAST_BIRTH)] = 0
    pair = twin_of_previous & (births[:, 1:] != 0)
    twin = np.zeros(births.shape, bool)
    twin[:, 1:] |= pair
    twin[:, :-1] |= pair
    return births, twin


def _sexes(rng: np.random.Generator, people: Persons) -> Bools:
    n = len(people)
    male = rng.random(n) < 0.512
    male[people.role == PARENT] = rng.random(int((people.role == PARENT).sum())) < 0.07
    partner = np.flatnonzero(people.role == PARTNER)
    opposite = rng.random(len(partner)) < 0.975
    male[partner] = male[partner - 1] ^ opposite
    later = np.flatnonzero(people.twin & (np.r_[False, people.twin[:-1]]) & (np.r_[False, np.diff(people.born) == 0]))
    same = rng.random(len(later)) < _IDENTICAL_SEX
    for i, alike in zip(later.tolist(), same.tolist(), strict=True):
        if alike:
            male[i] = male[i - 1]
    return male


def _give_surnames(rng: np.random.Generator, of: Families, people: Persons, order: Ints) -> None:
    """Children have the partner's surname or the parent's; in a step-family the oldest have another father's."""
    n = len(of)
    parents, partners, former = (draw_surnames(rng, of.origin) for _ in range(3))
    double = np.flatnonzero((rng.random(n) < _DOUBLE_BARRELLED) & (of.origin == 0))
    partners[double] = partners[double] + "-" + parents[double]
    married = of.couple & (rng.random(n) < _MARRIED)
    maiden = parents.copy()
    parents[married] = partners[married]
    child = np.where(of.couple | (rng.random(n) < 0.3), partners, parents)
    steps = rng.integers(1, 3, n)

    family, role = people.family, people.role
    people.step = (role == CHILD) & of.step[family] & (order < steps[family])
    surname = np.where(role == PARENT, parents[family], np.where(role == PARTNER, partners[family], child[family]))
    people.surname = np.where(people.step, former[family], surname).astype(object)
    gendered = (of.origin[family] == ORIGINS.index("east_european")) & ~people.male
    for i in np.flatnonzero(gendered).tolist():
        if people.surname[i].endswith("ski"):
            people.surname[i] = people.surname[i][:-1] + "a"
    people.other_surname = np.full(len(people), "", object)
    changed = (role == PARENT) & ~people.male & (rng.random(len(people)) < _NAME_CHANGES)
    people.other_surname[changed & married[family]] = maiden[family][changed & married[family]]
    single = changed & ~married[family]
    people.other_surname[single] = draw_surnames(rng, of.origin[family[single]])


def _give_forenames(rng: np.random.Generator, of: Families, people: Persons) -> None:
    n = len(people)
    origin = of.origin[people.family]
    year = parts_of_days(people.born)[0]
    people.forename = draw_forenames(rng, origin, people.male, year)

    initialled = np.flatnonzero(
        (people.role == CHILD) & np.r_[False, people.role[:-1] == CHILD] & (rng.random(n) < _SAME_INITIAL)
    )
    for _ in range(10):
        initials = np.array([name[0] for name in people.forename], object) if len(initialled) else None
        if initials is None:
            break
        initialled = initialled[initials[initialled] != initials[initialled - 1]]
        people.forename[initialled] = draw_forenames(rng, origin[initialled], people.male[initialled], year[initialled])
    for _ in range(20):
        again = _namesakes(people)
        if not len(again):
            break
        people.forename[again] = draw_forenames(rng, origin[again], people.male[again], year[again])

    middle = draw_forenames(rng, origin, people.male, year - 12)
    second = draw_forenames(rng, origin, people.male, year - 12)
    has = (rng.random(n) < _MIDDLE_NAMES) & (middle != people.forename)
    two = has & (rng.random(n) < _TWO_MIDDLE_NAMES) & (second != middle)
    people.middle_names = np.where(two, middle + " " + second, np.where(has, middle, "")).astype(object)

    # Sons who are called as their father: the oldest son, who has his surname.
    father = np.full(len(of), -1)
    adult = (people.role != CHILD) & people.male
    father[people.family[adult]] = np.flatnonzero(adult)
    sons = np.flatnonzero((people.role == CHILD) & people.male & ~people.step & ~people.twin)
    sons = sons[np.unique(people.family[sons], return_index=True)[1]]
    sons = sons[(father[people.family[sons]] >= 0) & (rng.random(len(sons)) < _SON_OF_HIS_NAME)]
    fathers = father[people.family[sons]]
    people.forename[sons] = people.forename[fathers]
    people.surname[sons] = people.surname[fathers]
    people.decoys.append(Decoys("father_and_son", sons, fathers))


def _namesakes(people: Persons) -> Ints:
    """Children who have the forename of an older one in the family."""
    at = np.flatnonzero(people.role == CHILD)
    seen: set[tuple[int, str]] = set()
    out = []
    for i, key in zip(at.tolist(), zip(people.family[at].tolist(), people.forename[at], strict=True), strict=True):
        if key in seen:
            out.append(i)
        seen.add(key)
    return np.array(out, np.int64)


def _plant_outside(rng: np.random.Generator, of: Families, people: Persons) -> None:
    """Make persons outside the cohort look like persons of the cohort."""
    cohort = of.status[people.family] != OUTSIDE
    inside, outside = np.flatnonzero(cohort), np.flatnonzero(~cohort)

    def pairs(rate: float, who: Bools, like: Bools) -> tuple[Ints, Ints]:
        a, b = outside[who[outside]], inside[like[inside]]
        k = min(len(a), len(b), max(3, round(rate * len(inside))))
        return a[rng.permutation(len(a))[:k]], b[rng.permutation(len(b))[:k]]

    child = people.role == CHILD
    used = np.zeros(len(people), bool)
    for earlier in people.decoys:  # who is already made to look like someone stays as he is
        used[earlier.person] = used[earlier.other] = True
    for adults in (False, True):
        a, b = pairs(_STRANGERS / 2, (child ^ adults) & ~used & ~people.twin, (child ^ adults) & ~used)
        people.male[a], people.born[a] = people.male[b], people.born[b]
        people.forename[a], people.surname[a] = people.forename[b], people.surname[b]
        used[a] = True
        people.decoys.append(Decoys("same_name_and_birth_date", a, b))
    a, b = pairs(_FATHERS, (people.role == PARTNER) & people.male & ~used, child & people.male)
    people.forename[a], people.surname[a] = people.forename[b], people.surname[b]
    used[a] = True
    people.decoys.append(Decoys("father_outside", a, b))
    a, b = pairs(_TWINS_OUTSIDE, child & ~used & ~people.twin, child & ~people.twin)
    people.born[a], people.surname[a] = people.born[b], people.surname[b]
    people.forename[a] = draw_forenames(
        rng, of.origin[people.family[b]], people.male[a], parts_of_days(people.born[a])[0]
    )
    alike = a[people.forename[a] == people.forename[b]]
    people.forename[alike] = people.forename[alike] + "-Lee"
    people.decoys.append(Decoys("twin_outside", a, b))


def _list_decoys(of: Families, people: Persons) -> None:
    """What arose by itself: twins, siblings of one initial, step-children, movers, two councils, new surnames."""
    none = np.full(len(people), -1)
    previous = np.arange(len(people)) - 1
    child = people.role == CHILD
    brother = child & (np.roll(child, 1)) & (np.roll(people.family, 1) == people.family)
    twin = np.flatnonzero(brother & (np.roll(people.born, 1) == people.born))
    initials = np.array([name[0] for name in people.forename], object)
    alike = brother & (np.roll(initials, 1) == initials) & (np.roll(people.male, 1) == people.male)
    one_initial = np.flatnonzero(alike & (np.roll(people.surname, 1) == people.surname))
    step = np.flatnonzero(people.step)
    mover = np.flatnonzero(of.earlier_postcode[people.family] != "")
    both = np.flatnonzero(of.second_council[people.family] >= 0)
    changed = np.flatnonzero(people.other_surname != "")
    people.decoys += [
        Decoys("twins", twin, previous[twin]),
        Decoys("same_initial_siblings", one_initial, previous[one_initial]),
        Decoys("step_family", step, none[step]),
        Decoys("mover", mover, none[mover]),
        Decoys("two_councils", both, none[both]),
        Decoys("name_change", changed, none[changed]),
    ]
