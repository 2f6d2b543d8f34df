"""The part of Go's templates that ``--format`` is used with.

Fields (``.State.Status``), the functions below, pipes, strings and numbers, ``if``/``else``, ``range`` and ``with``,
variables. A field that is not there is an error that says what is: a typing mistake in a script must
not print nothing. Only what is named by users (``Map``) has names that may or may not be there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from pyrt.cli.parser import did_you_mean
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ACTION: Final = re.compile(r"\{\{(?P<left>- )?(?P<action>.*?)(?P<right> -)?\}\}", re.DOTALL)
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+)|(?P<pipe>\|)|(?P<open>\()|(?P<close>\))|(?P<chain>(?<=\))(?:\.\w+)+)
    |(?P<field>(?:\$\w*)?(?:\.\w+)+|\$\w*|\.)|(?P<word>\w+)|(?P<other>\S))""",
    re.VERBOSE,
)
_VARIABLE: Final = re.compile(r"\$\w+")
_END_OF_TEXT: Final = "\0"
_ESCAPES: Final = {"\\t": "\t", "\\n": "\n"}

Scope: TypeAlias = "dict[str, Any]"
Render: TypeAlias = "Callable[[Any, Scope], str]"


class Map(dict[str, Any]):
    """What Go has a map for, such as labels: a name that it lacks is no mistake."""


def compile_template(text: str) -> Callable[[Any], str]:
    """A function from a value (of dicts, lists, strings, numbers) to text. Raises UsageError."""
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    parts = _split(text)
    render, end = _block(parts)
    if end != _END_OF_TEXT:
        raise _wrong(f"{{{{{end}}}}} without a beginning")
    return lambda value: render(value, {"$": value})


def _wrong(what: str) -> UsageError:
    return UsageError(f"the template is wrong: {what}", hint="such as '{{.State.Status}}' or '{{json .}}'")


def _split(text: str) -> Iterator[tuple[str, str]]:
    """Pairs of literal text and the action after it; the last is _END_OF_TEXT."""
    place, trim = 0, False
    for match in _ACTION.finditer(text):
        literal = text[place : match.start()]
        literal = literal.lstrip() if trim else literal
        yield literal.rstrip() if match["left"] else literal, match["action"].strip()
        place, trim = match.end(), bool(match["right"])
    rest = text[place:]
    if "{{" in rest:
        raise _wrong("{{ without }}")
    yield rest.lstrip() if trim else rest, _END_OF_TEXT


def _block(parts: Iterator[tuple[str, str]]) -> tuple[Render, str]:
    """Everything up to ``end``, ``else`` or the end of the text; and which it was."""
    pieces: list[Render] = []
    for literal, action in parts:
        pieces.append(_literal(literal))
        word, _, rest = action.partition(" ")
        if word in {_END_OF_TEXT, "end", "else"}:
            return (lambda value, scope: "".join(piece(value, scope) for piece in pieces)), action
        if word in {"if", "range", "with"}:
            pieces.append(_structure(word, rest, parts))
        elif not word.startswith("/*"):
            pieces.append(_output(action))
    raise AssertionError("the text's end is a part")


def _literal(text: str) -> Render:
    return lambda value, scope: text


def _output(action: str) -> Render:
    name, assigns, expression = action.partition(":=")
    if assigns and _VARIABLE.fullmatch(name.strip()):
        return _assignment(name.strip(), _expression(expression))
    evaluate = _expression(action)
    return lambda value, scope: _shown(evaluate(value, scope))


def _assignment(name: str, evaluate: Callable[[Any, Scope], Any]) -> Render:
    def render(value: Any, scope: Scope) -> str:
        scope[name] = evaluate(value, scope)
        return ""

    return render


def _shown(value: Any) -> str:
    """As Go prints it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_shown(value[key])}' for key in sorted(value))}]"
    return "<no value>" if value is None else str(value)


def _structure(word: str, head: str, parts: Iterator[tuple[str, str]]) -> Render:
    names: list[str] = []
    if ":=" in head:
        left, _, head = head.partition(":=")
        names = [name.strip() for name in left.split(",")]
    evaluate = _expression(head)
    body, end = _block(parts)
    otherwise: Render = lambda value, scope: ""  # noqa: E731
    if end.startswith("else if "):
        otherwise, end = _structure("if", end.removeprefix("else if "), parts), "end"
    elif end == "else":
        otherwise, end = _block(parts)
    if end != "end":
        raise _wrong(f"{word} without {{{{end}}}}")

    def render(value: Any, scope: Scope) -> str:
        subject = evaluate(value, scope)
        if not subject:
            return otherwise(value, scope)
        if word == "range":
            return "".join(body(item, scope | variables) for item, variables in _items(subject, names))
        return body(subject if word == "with" else value, {**scope, **dict.fromkeys(names, subject)})

    return render


def _items(subject: Any, names: list[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    pairs = sorted(subject.items()) if isinstance(subject, dict) else enumerate(subject)
    for key, item in pairs:
        yield item, dict(zip(names, (key, item) if len(names) == 2 else (item,), strict=False))


def _expression(text: str) -> Callable[[Any, Scope], Any]:
    tokens = [(match.lastgroup or "", match[0].strip()) for match in _TOKEN.finditer(text) if match[0].strip()]
    evaluate = _pipeline(tokens)
    if tokens:
        raise _wrong(f"{tokens[0][1]!r} in {{{{{text.strip()}}}}}")
    return evaluate


def _pipeline(tokens: list[tuple[str, str]]) -> Callable[[Any, Scope], Any]:
    commands = [_command(tokens)]
    while tokens and tokens[0][0] == "pipe":
        tokens.pop(0)
        commands.append(_command(tokens))

    def evaluate(value: Any, scope: Scope) -> Any:
        result = commands[0](value, scope, ())
        for command in commands[1:]:
            result = command(value, scope, (result,))
        return result

    return evaluate


def _command(tokens: list[tuple[str, str]]) -> Callable[[Any, Scope, tuple[Any, ...]], Any]:
    operands: list[Callable[[Any, Scope], Any]] = []
    function: Callable[..., Any] | None = None
    first = True
    while tokens and tokens[0][0] not in {"pipe", "close"}:
        kind, token = tokens.pop(0)
        if kind == "word" and first and token not in {"true", "false"}:
            function = _FUNCTIONS.get(token)
            if function is None:
                raise UsageError(f"the template has no function {token}", hint=did_you_mean(token, _FUNCTIONS))
        else:
            operands.append(_operand(kind, token, tokens))
        first = False
    if not operands and function is None:
        raise _wrong("an empty {{}}")

    def evaluate(value: Any, scope: Scope, piped: tuple[Any, ...]) -> Any:
        values = [*(operand(value, scope) for operand in operands), *piped]
        if function:
            return _call(function, values)
        # A method, as `.Label "app"` is one.
        return _call(values[0], values[1:]) if callable(values[0]) else values[0]

    return evaluate


def _call(function: Callable[..., Any], values: list[Any]) -> Any:
    try:
        return function(*values)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise _wrong(str(error)) from None


def _operand(kind: str, token: str, tokens: list[tuple[str, str]]) -> Callable[[Any, Scope], Any]:
    match kind:
        case "string":
            text = token[1:-1] if token[0] == "`" else msgspec.json.decode(token)
            return lambda value, scope: text
        case "number":
            return lambda value, scope: int(token)
        case "word" if token in {"true", "false"}:
            return lambda value, scope: token == "true"
        case "field":
            return _field(token)
        case "open":
            inner = _pipeline(tokens)
            if not tokens or tokens.pop(0)[0] != "close":
                raise _wrong("( without )")
            return _chained(inner, tokens)
    raise _wrong(f"{token!r}")


def _chained(inner: Callable[[Any, Scope], Any], tokens: list[tuple[str, str]]) -> Callable[[Any, Scope], Any]:
    """What stands right behind a parenthesis: ``(index .Mounts 0).Source``."""
    if not tokens or tokens[0][0] != "chain":
        return inner
    field = _field(tokens.pop(0)[1])
    return lambda value, scope: field(inner(value, scope), scope)


def _field(token: str) -> Callable[[Any, Scope], Any]:
    root, *names = token.split(".")
    names = [name for name in names if name]

    def evaluate(value: Any, scope: Scope) -> Any:
        if root and root not in scope:
            raise _wrong(f"there is no {root}")
        found = scope[root] if root else value
        for name in names:
            found = _member(found, name, token)
        return found

    return evaluate


def _member(value: Any, name: str, token: str) -> Any:
    if isinstance(value, dict) and name in value:
        return value[name]
    if isinstance(value, Map):
        return None
    has = list(value) if isinstance(value, dict) else []
    hint = did_you_mean(name, has) or (f"there are {', '.join(map(str, has))}" if has else None)
    raise UsageError(f"the template's {token} names .{name}, which is not there", hint=hint)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, dict) else value[key]
    return value


def _json(value: Any) -> str:
    if isinstance(value, dict):
        # Methods are for templates alone.
        value = {key: item for key, item in value.items() if not callable(item)}
    return msgspec.json.encode(value).decode()


def _println(*values: Any) -> str:
    return " ".join(map(_shown, values)) + "\n"


def _printf(form: str, *values: Any) -> str:
    return form.replace("%v", "%s").replace("%q", '"%s"') % tuple(
        value if isinstance(value, int | float) and not isinstance(value, bool) else _shown(value) for value in values
    )


def _truncate(text: str, length: int) -> str:
    return text[:length]


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "json": _json,
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "join": lambda values, separator: str(separator).join(map(_shown, values)),
    "split": lambda text, separator: text.split(separator),
    "index": _index,
    "len": len,
    "println": _println,
    "print": lambda *values: "".join(map(_shown, values)),
    "printf": _printf,
    "truncate": _truncate,
    "slice": lambda value, *ends: value[slice(*ends) if len(ends) == 2 else slice(ends[0] if ends else None, None)],
    "pad": lambda text, left, right: " " * left + _shown(text) + " " * right if text else "",
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "eq": lambda value, *others: value in others,
    "ne": lambda value, other: value != other,
    "lt": lambda value, other: value < other,
    "le": lambda value, other: value <= other,
    "gt": lambda value, other: value > other,
    "ge": lambda value, other: value >= other,
}
