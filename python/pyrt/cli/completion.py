"""Scripts that complete command lines in three shells.

Verbs and options are written into the script; names of containers and images it asks for while you type, with
``pyrt __complete``, which costs a millisecond where a server runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyrt.cli.verbs import VERBS, parser_of

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: Final = {
    "run": "runnable",
    "explain": "runnable",
    "exec": "running",
    "kill": "running",
    "stop": "running",
    "top": "running",
    "stats": "running",
    "pause": "running",
    "unpause": "running",
    "update": "containers",
    "rename": "containers",
    "port": "running",
    "diff": "containers",
    "export": "containers",
    "commit": "containers",
    "cp": "files",
    "rm": "containers",
    "inspect": "things",
    "pull": "images",
    "save": "images",
    "tag": "images",
    "rmi": "images",
    "images": "images",
}
"""What follows a verb: a kind of ``__complete``. After the others come files."""

_SHOWN: Final = tuple(name for name, verb in VERBS.items() if not verb.hidden)


def _kind(name: str) -> str:
    return KINDS.get(name.split()[-1] if name.startswith(("image ", "container ")) else name, "")


def _options(name: str) -> list[tuple[list[str], str, bool]]:
    return parser_of(name).options()


def _takes_value(name: str) -> str:
    return "|".join(option for options, _, value in _options(name) if value for option in options) or "-"


def bash() -> str:
    """For bash, with or without the bash-completion package."""
    cases = "\n".join(
        f'    "{name}") options="{" ".join(option for options, _, _ in _options(name) for option in options)}"\n'
        f'      values="{_takes_value(name)}"; kind="{_kind(name)}" ;;'
        for name in _SHOWN
    )
    return _BASH.replace("@VERBS@", _first_words()).replace("@GROUPS@", _groups_bash()).replace("@CASES@", cases)


def _first_words() -> str:
    return " ".join(dict.fromkeys(name.split()[0] for name in _SHOWN))


def _members(group: str) -> list[str]:
    return [name.split()[1] for name in VERBS if name.startswith(f"{group} ")]


def _groups() -> list[str]:
    return list(dict.fromkeys(name.split()[0] for name in VERBS if " " in name))


def _groups_bash() -> str:
    return "\n".join(f'    {group}) second="{" ".join(_members(group))}" ;;' for group in _groups())


_BASH: Final = """# Completion of pyrt for bash: source <(pyrt completion bash)
_pyrt() {
  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"
  local first="${COMP_WORDS[1]}" second="" start=2 verb options values kind
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W "@VERBS@" -- "$current")); return
  fi
  case "$first" in
@GROUPS@
  esac
  verb="$first"
  if [[ -n "$second" ]]; then
    if ((COMP_CWORD == 2)); then
      COMPREPLY=($(compgen -W "$second" -- "$current")); return
    fi
    verb="$first ${COMP_WORDS[2]}"; start=3
  fi
  case "$verb" in
@CASES@
  *) return ;;
  esac
  if [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current")); return
  fi
  local i words=0 skip=0
  for ((i = start; i < COMP_CWORD; i++)); do
    if ((skip)); then skip=0; continue; fi
    case "${COMP_WORDS[i]}" in
      -*=*) ;;
      -*) [[ "|$values|" == *"|${COMP_WORDS[i]}|"* ]] && skip=1 ;;
      *) words=$((words + 1)) ;;
    esac
  done
  local one="^(run|exec|explain|top|rename|port|commit)$"
  if ((skip)) || [[ -z "$kind" ]] || { ((words)) && [[ "$verb" =~ $one ]]; }; then
    COMPREPLY=($(compgen -f -- "$current")); return
  fi
  COMPREPLY=($(compgen -W "$(pyrt __complete "$kind" 2>/dev/null)" -- "$current"))
  # Of cp either may be a file of this machine.
  [[ "$kind" == files ]] && COMPREPLY+=($(compgen -f -- "$current"))
  # A colon is a word's end to bash: of debian:12 it wants only the part behind it.
  [[ "$(type -t __ltrim_colon_completions)" == function ]] && __ltrim_colon_completions "$current"
}
complete -o filenames -F _pyrt pyrt
"""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def zsh() -> str:
    """For zsh: to be sourced, or put into a folder of $fpath as _pyrt."""
    verbs = "\n".join(f"    {_quoted(f'{name}:{VERBS[name].summary}')}" for name in _SHOWN if " " not in name)
    groups = "\n".join(f"    {_quoted(f'{group}:{group} ...')}" for group in _groups())
    members = "\n".join(f"    {group}) members=({' '.join(_members(group))}) ;;" for group in _groups())
    cases = "\n".join(_zsh_case(name) for name in _SHOWN)
    text = _ZSH.replace("@VERBS@", f"{verbs}\n{groups}").replace("@MEMBERS@", members)
    return text.replace("@CASES@", cases)


def _zsh_case(name: str) -> str:
    lines = [
        _quoted(f"*{option}[{text.replace('[', '(').replace(']', ')')}]{':value:_files' if value else ''}")
        for options, text, value in _options(name)
        for option in options
    ]
    kind = _kind(name)
    if name in {"run", "explain", "exec"}:
        lines += [_quoted(f"1: :_pyrt_names {kind}"), _quoted("*:: :_normal -p pyrt")]
    else:
        lines.append(_quoted(f"*: :_pyrt_names {kind}" if kind else "*:file:_files"))
    return f'    "{name}") _arguments -s ' + " ".join(lines) + " ;;"


_ZSH: Final = """#compdef pyrt
# Completion of pyrt for zsh: source <(pyrt completion zsh)
_pyrt_names() {
  local -a names
  names=(${(f)"$(pyrt __complete $1 2>/dev/null)"})
  compadd -a names
}
_pyrt() {
  local -a verbs members
  verbs=(
@VERBS@
  )
  if ((CURRENT == 2)); then _describe verb verbs; return; fi
  local verb="$words[2]"
  case "$verb" in
@MEMBERS@
  esac
  if (($#members)); then
    if ((CURRENT == 3)); then compadd -a members; return; fi
    verb="$verb $words[3]"; shift words; ((CURRENT--))
  fi
  shift words; ((CURRENT--))
  case "$verb" in
@CASES@
  esac
}
compdef _pyrt pyrt
"""


def fish() -> str:
    """For fish: to be put into ~/.config/fish/completions/pyrt.fish."""
    lines = ["# Completion of pyrt for fish: pyrt completion fish | source", "complete -c pyrt -f"]
    firsts = " ".join(dict.fromkeys([name.split()[0] for name in VERBS]))
    first = f"not __fish_seen_subcommand_from {firsts}"
    lines += [_fish(first, f"-a {name}", VERBS[name].summary) for name in _SHOWN if " " not in name]
    for group in _groups():
        lines.append(_fish(first, f"-a {group}", f"{group} ..."))
        among = " ".join(_members(group))
        condition = f"__fish_seen_subcommand_from {group}; and not __fish_seen_subcommand_from {among}"
        lines += [_fish(condition, f"-a {member}", VERBS[f"{group} {member}"].summary) for member in _members(group)]
    for name in _SHOWN:
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        lines += [_fish(condition, _fish_words(options, value), text) for options, text, value in _options(name)]
        kind = _kind(name)
        lines.append(f"complete -c pyrt -n '{condition}' " + (f"-a '(pyrt __complete {kind})'" if kind else "-F"))
    return "\n".join(lines) + "\n"


def _fish_words(options: list[str], value: bool) -> str:
    words = [f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}" for option in options]
    return " ".join([*words, *(["-r"] if value else [])])


def _fish(condition: str, words: str, text: str) -> str:
    return f"complete -c pyrt -n '{condition}' {words} -d {_quoted_fish(text)}"


def _quoted_fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Final[dict[str, Callable[[], str]]] = {"bash": bash, "zsh": zsh, "fish": fish}
