"""Problems in the classes of whole cases that a generator or a classifier would silently learn from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from jdm.data.classes import FILE_NAME
from jdm.data.groups import read_groups
from jdm.data.raw_layout import RawDataset, few
from jdm.data.tables import case_column
from jdm.errors import DataError


def class_findings(dataset: RawDataset, sizes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Lines about classes.csv beside dataset.json, if there is one: what was found, and what to do.

    Args: sizes: (*spatial) of each case that can be read.
    """
    path = dataset.folder / FILE_NAME
    if not path.is_file():
        return
    try:
        column = {case: name for _, case, name in case_column(path, "class", {*dataset.cases, *dataset.test_cases})}
        groups = {**read_groups(dataset), **read_groups(dataset, test=True)}
    except DataError as error:
        yield str(error)
        return
    training = {case: column[case] for case in dataset.cases if column.get(case)}
    test = {case: column[case] for case in dataset.test_cases if column.get(case)}
    counts = Counter(training.values())
    if rare := sorted(name for name, count in counts.items() if count == 1):
        yield f"classes with one training image: {few(rare)}; it would be copied; add images, or merge classes"
    if test and (strange := sorted({*test.values()} ^ {*counts})):
        yield f"classes of the training cases or of the test cases alone: {few(strange)}; correct {FILE_NAME}"
    both = defaultdict(set)
    for case, name in {**training, **test}.items():
        both[groups.get(case, case)].add(name)
    if mixed := sorted(group for group, names in both.items() if len(names) > 1):
        yield f"patients with images of several classes: {few(mixed)}; check the classes, or the groups"
    yield from _borders(training, sizes)


def _borders(classes: Mapping[str, str], sizes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Classes whose images all have one size that images of no other class have."""
    found = defaultdict(set)
    for case, name in classes.items():
        if case in sizes:
            found[name].add(sizes[case])
    for name, own in sorted(found.items()):
        others = {size for other, theirs in found.items() if other != name for size in theirs}
        if len(own) == 1 and others and not own & others:
            size = "x".join(map(str, next(iter(own))))
            yield (
                f"all images of class {name!r} are {size}, those of other classes are not: a classifier could learn "
                "that; bring all to one size (jdm-convert classes --crop-centre --size)"
            )
