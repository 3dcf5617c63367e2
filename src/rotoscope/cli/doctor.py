"""`rotoscope doctor`: what is installed, what works here, and what is wrong."""

import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `ok` is False for what keeps Rotoscope from working."""

    what: str
    found: str
    ok: bool = True


def doctor(*, as_json: Annotated[bool, typer.Option("--json", help="The findings as one JSON list.")] = False) -> int:
    """Say what is installed and what works here; exit code 1 if something needed does not."""
    findings = [finding for check in (_versions, _machine, _codecs, _weights, _tracking) for finding in _guarded(check)]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what:<12} {finding.found}")
    return 0 if all(finding.ok for finding in findings) else 1


def _guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    """The findings of a check; a check that breaks is itself a finding."""
    try:
        return check()
    except Exception as error:
        return [Finding(check.__name__.strip("_"), f"{type(error).__name__}: {error}", ok=False)]


def _versions() -> list[Finding]:
    names = ("rotoscope", "torch", "numpy", "av", "opencv-python-headless", "pillow", "safetensors")
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return [Finding("python", f"{sys.version.split()[0]} on {platform.platform()}"), Finding("packages", packages)]


def _machine() -> list[Finding]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [
        Finding("processor", f"{psutil.cpu_count(logical=False)} cores, torch uses {torch.get_num_threads()} threads"),
        Finding("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GB free"),
        Finding("gpu", ", ".join(gpus) or "none: everything runs on the CPU"),
    ]


def _codecs() -> list[Finding]:
    import av

    wanted = {"libvpx-vp9": "overlay.webm", "libx264": "overlay.mp4, on request"}
    return [
        Finding("encoder", f"{name} for {use}" if name in av.codecs_available else f"{name} is missing: no {use}", ok=name in av.codecs_available)
        for name, use in wanted.items()
    ]


def _weights() -> list[Finding]:
    from rotoscope.models import registry

    statuses = [(spec, registry.find_weights(spec)) for spec in registry.list_models()]
    absent = [spec.name for spec, status in statuses if status.path is None and not spec.shipped]
    findings = [
        Finding("weights", f"{spec.name}: {status.where}", ok=status.path is not None)
        for spec, status in statuses
        if spec.shipped or status.path is not None
    ]
    return [*findings, Finding("weights", f"{len(absent)} models wait for official weights; `rotoscope weights list` says where they are")]


def _tracking() -> list[Finding]:
    """Track a square over three frames: the whole path from frames to labels."""
    import time

    import numpy as np

    from rotoscope.jobs.track import track

    frames = np.full((3, 96, 128, 3), 60, dtype=np.uint8)
    for index in range(3):
        frames[index, 30:62, 40 + 4 * index : 72 + 4 * index] = (220, 60, 40)
    first = np.zeros((96, 128), dtype=np.uint8)
    first[30:62, 40:72] = 1
    begun = time.perf_counter()
    last = list(track(frames, first))[-1].labels == 1
    truth = np.zeros_like(last)
    truth[30:62, 48:80] = True
    overlap = (last & truth).sum() / (last | truth).sum()
    return [Finding("tracking", f"a moving square: IoU {overlap:.2f} in {time.perf_counter() - begun:.1f} s", ok=bool(overlap > 0.5))]
