"""Copies of one image among the samples, exact and altered, which of them leak, and training without these.

`likeness` decides about two images; here all images of a data set are compared, and what is found for training is kept
beside the cache.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lungseg.data.cache import cache_key, cache_path, locked
from lungseg.data.decode import read_lung
from lungseg.data.images import read_image
from lungseg.data.likeness import NEAR_IMAGE, NEAR_LUNGS, Frame, Signature, is_blank, likeness, neighbours, sign
from lungseg.data.sample import Sample
from lungseg.runs.progress import in_threads
from lungseg.runs.whole_files import write_whole

VERSION = 1  # Raised whenever the search would find others in the same files.
ALIKE = 0.75  # Cosine from which whole images are framed alike: altered copies have 0.88, others mostly below 0.7.
_MANY = 1000  # fewer images are all compared as wholes too: that takes no time


@dataclass(frozen=True)
class Leak:
    """Two samples that show one exposure."""

    kind: Literal["exact", "near"]  # Equal pixels, or equal but for encoding, size, crop, grey values or writing on it.
    likeness: float  # 1 for exact copies, else `likeness.likeness`, `NEAR_LUNGS` at least.
    first: Sample
    second: Sample

    @property
    def across(self) -> bool:
        """Whether they lie in different splits: only that is a leak in the strict sense."""
        return self.first.split != self.second.split


def find_leaks(
    samples: Sequence[Sample], signatures: Sequence[Signature | None] | None = None, quiet: bool = False
) -> list[Leak]:
    """Find the copies among samples in any order, within and across splits; across first, then by likeness and id.

    An exact copy is paired with the first of its kind by id; near copies are sought among those. Signatures are one a
    sample, None where it has none; without them every file is read, and one that cannot be is a DataError.
    """
    if signatures is None:
        signatures = list(in_threads(read_signature, samples, "images", quiet))
    signed = [(sample, signature) for sample, signature in zip(samples, signatures, strict=True) if signature]
    signed.sort(key=lambda pair: pair[0].id)
    same: dict[bytes, list[int]] = defaultdict(list)
    for at, (_, signature) in enumerate(signed):
        same[signature.digest].append(at)
    exact = [(signed[first][0], signed[other][0]) for first, *others in same.values() for other in others]
    leaks = [Leak("exact", 1.0, *pair) for pair in exact]
    # Near copies are sought among the first of each kind only; the others would repeat their pairs.
    firsts = [signed[copies[0]] for copies in same.values()]
    near = _near_pairs([signature for _, signature in firsts], quiet)
    leaks += [Leak("near", value, firsts[i][0], firsts[j][0]) for i, j, value in near]
    return sorted(leaks, key=lambda leak: (not leak.across, -leak.likeness, leak.first.id, leak.second.id))


def group_copies(leaks: Iterable[Leak]) -> list[list[Sample]]:
    """Join pairs that share a sample: each group is one exposure, sorted by id; groups by their first id."""
    group_of: dict[str, dict[str, Sample]] = {}  # Every sample's group, itself by id; one object a group.
    for leak in leaks:
        pair = [group_of.setdefault(sample.id, {sample.id: sample}) for sample in (leak.first, leak.second)]
        small, large = sorted(pair, key=len)
        if small is not large:
            large.update(small)
            group_of.update(dict.fromkeys(small, large))
    groups = {id(group): [group[name] for name in sorted(group)] for group in group_of.values()}
    return sorted(groups.values(), key=lambda group: group[0].id)


def without_training_copies(samples: Sequence[Sample], folder: Path | None = None) -> list[Sample]:
    """Leave out the samples of Train that show the same exposure as one of Val or Test.

    Several processes may call this at once: one searches, the others wait for its list, which lies beside the caches
    in `folder` (None: see `cache_path`). A file that cannot be read, or a list that cannot be kept: DataError.
    """
    path = cache_path(folder, f"copies-{VERSION}-{cache_key(samples, 0)}.txt")
    with locked(path, "list of copies", "data.exclude_leaks=false"):
        if not path.exists():
            ids = "\n".join(sorted(copies_in_train(find_leaks(samples))))
            write_whole(path, ids.encode("utf-8", "surrogateescape"))
        copies = set(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines())
    return [sample for sample in samples if sample.id not in copies]


def copies_in_train(leaks: Iterable[Leak]) -> set[str]:
    """Give the ids of train samples in a group of copies that has val or test samples too."""
    groups = (group for group in group_copies(leaks) if any(sample.split != "train" for sample in group))
    return {sample.id for group in groups for sample in group if sample.split == "train"}


def read_signature(sample: Sample) -> Signature:
    """Read a sample's image and lung mask, and sign it; raises as `read_image` and `read_mask` do."""
    image = read_image(sample.image)
    return sign(image, read_lung(sample, (image.shape[0], image.shape[1])) if sample.lung else None)


def _near_pairs(signatures: Sequence[Signature], quiet: bool) -> list[tuple[int, int, float]]:
    """Give confirmed pairs (i, j), i < j, with their likeness."""
    found: dict[tuple[int, int], float] = {}
    has_lungs = [signature.lungs is not None for signature in signatures]
    for what, least in (("lungs", NEAR_LUNGS), ("images", NEAR_IMAGE)):
        views = [signature.lungs if what == "lungs" else signature.image for signature in signatures]
        frames = {at: frame for at, frame in enumerate(views) if frame is not None and not is_blank(frame)}
        pairs = _candidates(frames, has_lungs if what == "images" else [])
        both = [(frames[i], frames[j]) for i, j in pairs]
        results = in_threads(lambda two: likeness(*two), both, f"comparing {what}", quiet)
        for pair, value in zip(pairs, results, strict=True):
            if value >= least:
                found[pair] = max(value, found.get(pair, 0.0))
    return [(i, j, value) for (i, j), value in found.items()]


def _candidates(frames: Mapping[int, Frame], has_lungs: Sequence[bool]) -> list[tuple[int, int]]:
    """Give the pairs to confirm; of many images those that have lungs to compare only if they are framed alike."""
    if len(frames) < 2:
        return []
    names = list(frames)
    found = ((names[i], names[j], cosine) for i, j, cosine in neighbours(list(frames.values())))
    few = len(frames) < _MANY or not has_lungs
    return sorted({(i, j) for i, j, cosine in found if few or cosine >= ALIKE or not (has_lungs[i] and has_lungs[j])})
