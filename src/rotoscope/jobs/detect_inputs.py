"""What to look for objects in: images, folders of images, and videos, as one stream of pictures with names."""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath

from rotoscope._files import natural_key
from rotoscope.errors import InputError, VideoError
from rotoscope.types import Frame
from rotoscope.video.folders import IMAGE_SUFFIXES, check_picture, read_picture
from rotoscope.video.read import Clip, open_clip, prefetch
from rotoscope.video.streams import frame_of

READ_AHEAD_PICTURES = 4
"""How many pictures wait decoded: photos may be much larger than frames of videos."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture is among the inputs: in the `source`-th, at `index`; both from 0."""

    source: int
    index: int


@dataclass(frozen=True, slots=True)
class NamedPicture:
    """A picture to look at, and what its results are called.

    Attributes:
        place: where it is among the inputs.
        image_id: its number in the results.
        name: of its files in the output folder, without suffix; unique, and with a folder for frames of videos.
        file_name: what `images.json` calls it.
        frame: the picture.
    """

    place: Place
    image_id: int
    name: str
    file_name: str
    frame: Frame


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that could not be read, and why."""

    place: Place
    file_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Images that have nothing to do with each other: their sizes may differ, and one that cannot be read is passed over.

    Attributes:
        paths: the files.
        names: see `NamedPicture`, for each.
        file_names: see `NamedPicture`, for each.
        image_ids: the number of each in the results.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    file_names: tuple[str, ...]
    image_ids: tuple[int, ...]

    def pictures(self, source: int, start: int) -> Generator[NamedPicture | Unreadable]:
        """The images from the `start`-th on."""
        for index in range(start, len(self.paths)):
            place = Place(source, index)
            try:
                frame = frame_of(index, read_picture(self.paths[index]), None, self.paths[index].stem)
            except VideoError as error:
                yield Unreadable(place, self.file_names[index], str(error))
                continue
            yield NamedPicture(place, self.image_ids[index], self.names[index], self.file_names[index], frame)

    @property
    def num_pictures(self) -> int:
        """How many there are, those that turn out to be unreadable included."""
        return len(self.paths)


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """The frames of a video.

    Attributes:
        clip: the opened video.
        name: of its files in the output folder.
        first_id: the number of frame 0 in the results.
        stop: how many frames to look at, at most.
    """

    clip: Clip
    name: str
    first_id: int
    stop: int | None

    def pictures(self, source: int, start: int) -> Generator[NamedPicture | Unreadable]:
        """The frames from the `start`-th on; those that are damaged are left out."""
        with closing(self.clip.frames(start, self.stop)) as frames:
            for frame in frames:
                name = f"{self.name}/{frame.index:05d}"
                yield NamedPicture(Place(source, frame.index), self.first_id + frame.index, name, f"{name}.png", frame)

    @property
    def num_pictures(self) -> int:
        """How many there are, those that turn out to be damaged included; 0 for a live stream without a `stop`."""
        return min((length for length in (self.clip.num_frames, self.stop) if length is not None), default=0)


Source = ImageFiles | VideoFrames


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that is to be looked at.

    Attributes:
        sources: one for each thing that was named.
        notes: what was left out, a line each.
    """

    sources: tuple[Source, ...]
    notes: tuple[str, ...] = ()

    def pictures(self, start: Place | None = None) -> Generator[NamedPicture | Unreadable]:
        """All pictures from a place on, decoded ahead in a thread."""
        return prefetch(self._walk(start or Place(0, 0)), READ_AHEAD_PICTURES)

    def _walk(self, start: Place) -> Iterator[NamedPicture | Unreadable]:
        for number in range(start.source, len(self.sources)):
            yield from self.sources[number].pictures(number, start.index if number == start.source else 0)

    @property
    def num_pictures(self) -> int:
        """How many there are, those that turn out to be unreadable included."""
        return sum(source.num_pictures for source in self.sources)

    @property
    def warnings(self) -> list[str]:
        """Damage of videos met so far."""
        return [line for source in self.sources if isinstance(source, VideoFrames) for line in source.clip.warnings]


def open_inputs(inputs: Sequence[str | Path | int], *, max_frames: int | None = None, known_ids: Mapping[str, int] | None = None) -> Inputs:
    """The inputs, checked: each exists, and is an image, a folder of images, or a video.

    Pictures are numbered from 1 in the order of the inputs; the numbers of images that turn out to be unreadable, and of damaged frames, stay free.

    Args:
        inputs: files, folders, stream URLs and camera numbers.
        max_frames: look at so many frames of each video at most.
        known_ids: the images to look at, by file name, with their numbers; others are left out. None to look at all.

    Raises:
        InputError: nothing is given, a live stream has no end or company, or `known_ids` lists none of the images.
        VideoError: an input cannot be read.
    """
    if not inputs:
        message = "nothing is given to look at; name images, folders of images, or videos"
        raise InputError(message)
    opened = [_open(one, max_frames, alone=len(inputs) == 1) for one in inputs]
    taken: set[str] = set()
    sources: list[Source] = []
    notes: list[str] = []
    next_id = 1
    for one in _with_distinct_file_names(opened):
        if isinstance(one, _Images):
            sources.append(ImageFiles(one.paths, tuple(_distinct(name, taken) for name in one.names), one.file_names, _ids(next_id, len(one.paths))))
            notes += [f"files of {one.folder} that are no images by their names, and were passed over: {one.passed_over}"] if one.passed_over else []
        else:
            sources.append(VideoFrames(one, _distinct(_plain_name(one.name), taken), next_id, max_frames))
        next_id += sources[-1].num_pictures
    return _only_known(Inputs(tuple(sources), tuple(notes)), known_ids)


@dataclass(frozen=True, slots=True)
class _Images:
    """Images named together; `file_names` may not be unique yet, nor the `names` for the output."""

    folder: Path | None
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    file_names: tuple[str, ...]
    passed_over: int = 0


def _open(one: str | Path | int, max_frames: int | None, *, alone: bool) -> _Images | Clip:
    path = Path(str(one))
    if isinstance(one, str | Path) and path.is_dir():
        return _images_of(path, alone=alone)
    if isinstance(one, str | Path) and path.suffix.lower() in IMAGE_SUFFIXES:
        check_picture(path)
        return _Images(None, (path,), (_plain_name(path.stem),), (path.name,))
    clip = open_clip(one)
    if clip.is_live and (max_frames is None or not alone):
        message = f"{clip.name} is a live stream without an end; give it alone, and say how many frames to take with --max-frames"
        raise InputError(message)
    return clip


def _images_of(folder: Path, *, alone: bool) -> _Images:
    try:
        files = [path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir()]
    except OSError as error:
        message = f"the folder {folder} cannot be read: {error.strerror}"
        raise VideoError(message) from error
    paths = sorted((path for path in files if path.suffix.lower() in IMAGE_SUFFIXES), key=natural_key)
    if not paths:
        message = f"the folder {folder} holds no images ({', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)}); name the folder that holds them"
        raise VideoError(message)
    prefix = "" if alone else f"{folder.resolve().name}/"
    names = tuple(f"{prefix}{path.stem}" for path in paths)
    return _Images(folder, tuple(paths), names, tuple(f"{prefix}{path.name}" for path in paths), len(files) - len(paths))


def _with_distinct_file_names(opened: Sequence[_Images | Clip]) -> Iterator[_Images | Clip]:
    """The same, with paths as they were given where two images have the same name."""
    counts = Counter(name for one in opened if isinstance(one, _Images) for name in one.file_names)
    for one in opened:
        if isinstance(one, _Images):
            distinct = (name if counts[name] == 1 else path.as_posix() for path, name in zip(one.paths, one.file_names, strict=True))
            yield _Images(one.folder, one.paths, one.names, tuple(distinct), one.passed_over)
        else:
            yield one


def _distinct(name: str, taken: set[str]) -> str:
    """The name, with a number behind it if it is taken; letters that differ in case alone are the same to some file systems."""
    candidate, number = name, 2
    while candidate.casefold() in taken:
        candidate, number = f"{name}-{number}", number + 1
    taken.add(candidate.casefold())
    return candidate


def _plain_name(name: str) -> str:
    """A name that is no way out of the output folder."""
    return name.lstrip(".") or "image"


def _ids(first: int, count: int) -> tuple[int, ...]:
    return tuple(range(first, first + count))


def _only_known(inputs: Inputs, known_ids: Mapping[str, int] | None) -> Inputs:
    if known_ids is None:
        return inputs
    by_name = {PurePath(name).name: image_id for name, image_id in known_ids.items()}
    sources: list[Source] = []
    unknown = 0
    for source in inputs.sources:
        if isinstance(source, VideoFrames):
            message = f"{source.clip.name} is a video; --ground-truth goes with images, which it lists by name"
            raise InputError(message)
        ids = [known_ids.get(name, by_name.get(PurePath(name).name)) for name in source.file_names]
        rows = zip(source.paths, source.names, source.file_names, ids, strict=True)
        kept = [(path, name, file_name, image_id) for path, name, file_name, image_id in rows if image_id is not None]
        unknown += len(ids) - len(kept)
        if kept:
            paths, names, file_names, numbers = zip(*kept, strict=True)
            sources.append(ImageFiles(paths, names, file_names, numbers))
    if not sources:
        message = f"none of the {unknown} images is listed in the ground truth; give the folder whose images it is about"
        raise InputError(message)
    notes = [f"images that the ground truth does not list, and that were left out: {unknown}"] if unknown else []
    return Inputs(tuple(sources), (*inputs.notes, *notes))
