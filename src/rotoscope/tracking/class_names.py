"""What a detector calls its classes."""

from collections.abc import Sequence


def class_names_of(detector: object) -> tuple[str, ...]:
    """What the detector calls its classes: its `class_names`, or those of its `config`; none where it does not say."""
    holder = detector if hasattr(detector, "class_names") else getattr(detector, "config", None)
    return tuple(getattr(holder, "class_names", ()))


def name_of(names: Sequence[str], class_id: int) -> str:
    """The name of a class; "class 7" where the detector's list is shorter."""
    return names[class_id] if 0 <= class_id < len(names) else f"class {class_id}"
