"""The little of YAML that lists of classes and folders are written in: texts, lists of texts, and maps of texts, under names. No dependency."""

from pathlib import Path

from rotoscope.errors import InputError

Value = str | list[str] | dict[str, str]


def read_flat_yaml(path: Path) -> dict[str, Value]:
    """The entries of a file: `name: text`, `name: [a, b]`, `name: {0: a, 1: b}`, and lists and maps that are written line by line below a name.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read ({error}); check the path"
        raise InputError(message) from error
    entries: dict[str, Value] = {}
    name = ""
    for number, line in enumerate(_joined(lines), 1):
        text = line.strip()
        if not text or text == "---":
            continue
        if line[0] not in " \t-":
            name, colon, rest = text.partition(":")
            if not colon:
                raise InputError(_refusal(path, number, text))
            entries[_plain(name)] = _value(rest.strip())
            name = _plain(name)
        elif not _added(entries, name, text):
            raise InputError(_refusal(path, number, text))
    return entries


def _refusal(path: Path, number: int, text: str) -> str:
    return f"{path}, line {number}: '{text}' is not understood; write 'name: text', 'name: [a, b]', or a list or map of texts below a name"


def _joined(lines: list[str]) -> list[str]:
    """The lines without comments; brackets that are closed on a later line are brought together."""
    result: list[str] = []
    is_open = False
    for line in lines:
        bare = _without_comment(line)
        if is_open:
            result[-1] += " " + bare.strip()
        else:
            result.append(bare)
        is_open = sum(result[-1].count(mark) for mark in "[{") > sum(result[-1].count(mark) for mark in "]}")
    return result


def _without_comment(line: str) -> str:
    quote = ""
    for place, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place].rstrip()
    return line.rstrip()


def _value(text: str) -> Value:
    if text.startswith("[") and text.endswith("]"):
        return [_plain(item) for item in _items(text[1:-1])]
    if text.startswith("{") and text.endswith("}"):
        pairs = (item.partition(":") for item in _items(text[1:-1]))
        return {_plain(key): _plain(value) for key, _, value in pairs}
    return _plain(text)


def _items(text: str) -> list[str]:
    """What commas part, but for those between quotes."""
    items, quote = [""], ""
    for character in text:
        if character == "," and not quote:
            items.append("")
            continue
        if character in "\"'" and quote in ("", character):
            quote = "" if quote else character
        items[-1] += character
    return [item for item in items if item.strip()]


def _plain(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _added(entries: dict[str, Value], name: str, text: str) -> bool:
    """Add a line below a name to its list or map; whether it could be."""
    value = entries.get(name)
    if value == "":
        value = entries[name] = [] if text.startswith("-") else {}
    if isinstance(value, list) and text.startswith("-"):
        value.append(_plain(text[1:]))
        return True
    key, colon, rest = text.partition(":")
    if isinstance(value, dict) and colon:
        value[_plain(key)] = _plain(rest)
        return True
    return False
