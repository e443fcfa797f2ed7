"""The layout of COVID-QU-Ex: two trees of splits, classes and masks, merged into one list of samples."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from lungseg.data.folders import IMAGE_FOLDERS, LUNG_FOLDERS, SPLIT_FOLDERS, Folders, Reading, join, phrase
from lungseg.data.layouts import read_classes
from lungseg.data.sample import Sample

CLASSES = ("COVID-19", "Non-COVID", "Normal")
"""Its classes in label order, and those of the phantoms."""
LACKING = "class without an image in Train"
_OWN_MASKS = ("lung masks", "lung_masks")


def names_of_classes(label_map: Mapping[str, str]) -> dict[str, str]:
    """Its classes by what their folders may be called, in lower case: themselves, and names mapped to them."""
    names = {name.casefold(): name for name in CLASSES}
    return names | {name.casefold(): names[to.casefold()] for name, to in label_map.items() if to.casefold() in names}


def find_covidqu(folders: Folders, names: Collection[str]) -> list[str]:
    """Find the trees of COVID-QU-Ex: `{Train,Val,Test}/<class>/{images,lung masks}`, at most two folders down.

    A class folder with `lung masks` may bear any name, one with another folder of masks one of the `names`.
    """
    trees: list[str] = []
    level = [""]
    for _ in range(3):  # the archive puts each tree into two folders of one name
        trees += (here := [folder for folder in level if _is_tree(folders, names, folder)])
        level = [join(folder, name) for folder in level if folder not in here for name in folders.dirs(folder)]
    return trees


def read_covidqu(folders: Folders, names: Mapping[str, str], found: Sequence[str]) -> Reading:
    """Read its trees and merge them: no image counts twice, and each must have its lung mask.

    Where classes bear the `names` of its own, all of these must have images in Train.
    """
    trees: dict[str, dict[str, list[Sample]]] = {"lung": {}, "infection": {}}  # Samples by folder, by kind of tree.
    no_split, problems = list[str](), list[str]()
    for tree in found:
        of_tree: list[Sample] = []
        for name in folders.dirs(tree):
            split = SPLIT_FOLDERS.get(name.casefold())
            of_classes = read_classes(folders, join(tree, name), split or "train")
            if split:
                of_tree += of_classes
            elif of_classes:
                no_split.append(join(tree, name))
        kind = "infection" if any(sample.infection for sample in of_tree) else "lung"
        trees[kind][tree] = of_tree
    for kind, same in trees.items():
        if len(same) > 1:
            problems += phrase(f"more than one {kind} tree", same, "point data.root at one, or keep one of each kind")
    merged = _merge(folders, *(list(chain(*of_kind.values())) for of_kind in trees.values()))
    bare = [sample.id for sample in merged if sample.lung is None]
    inside = [(tree, name) for tree in chain(*trees.values()) for name in folders.dirs(tree)]
    trains = [join(tree, name) for tree, name in inside if SPLIT_FOLDERS.get(name.casefold()) == "train"]
    there = {names.get((s.class_name or "").casefold()) for s in merged if s.split == "train"}
    own = not merged or any((sample.class_name or "").casefold() in names for sample in merged)
    lacking = [join(trains[0], name) for name in CLASSES if trains and own and name not in there]
    add = "add it to 'lung masks' under the image's name, or remove the image"
    problems += [
        *phrase("folder whose name is no split", no_split, "call it Train, Val or Test, or move it away"),
        *phrase("image without a lung mask", bare, add),
        *phrase(LACKING, lacking, "add its images there, in a folder 'images'"),
        *folders.problems(),
    ]
    return Reading("COVID-QU-Ex", merged, problems, True)


def _is_tree(folders: Folders, names: Collection[str], folder: str) -> bool:
    """Whether some class folder in some split folder of a folder has images and lung masks."""
    splits = [join(folder, name) for name in folders.dirs(folder) if name.casefold() in SPLIT_FOLDERS]
    for split in splits:
        for name in folders.dirs(split):
            inside, masks = join(split, name), LUNG_FOLDERS if name.casefold() in names else _OWN_MASKS
            if folders.child(inside, IMAGE_FOLDERS) and folders.child(inside, masks):
                return True
    return False


def _merge(folders: Folders, lung: list[Sample], infection: list[Sample]) -> list[Sample]:
    """Add the infection tree to the lung tree, which decides the split; an image is known by its class and name."""
    merged = list(lung)
    named: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, sample in enumerate(lung):
        named[_name_of(sample)].append(at)
    unclear: list[str] = []
    for extra in infection:
        matches = named.get(_name_of(extra))
        if matches is None:
            merged.append(extra)
            continue
        # Names repeat between splits now and then; a single match may lie in another split than here.
        same_split = [at for at in matches if merged[at].split == extra.split] if len(matches) > 1 else matches
        free = [at for at in same_split if merged[at].infection is None]
        if len(free) == 1:
            image = merged[free[0]]
            merged[free[0]] = replace(image, lung=image.lung or extra.lung, infection=extra.infection)
        else:
            unclear.append(extra.id)
    folders.warn("infection image that fits no single image of the lung tree", unclear, "left out; see the audit")
    return merged


def _name_of(sample: Sample) -> tuple[str, str]:
    return (sample.class_name or "").casefold(), sample.image.stem.casefold()
