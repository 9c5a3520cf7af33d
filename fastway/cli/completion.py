"""`fastway completion bash|zsh`: a script for a shell, made of the tables of commands and options.

Rule: the script knows everything when it is loaded; to complete starts no Python.
"""

from __future__ import annotations

from fastway.cli.table import COMMANDS, Command, CompletionOptions, operand
from fastway.config.table import Option
from fastway.errors import ConfigError

BASH = """\
# bash completion of fastway
_fastway() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command="${{COMP_WORDS[1]}}" words= options= files=
    COMPREPLY=()
    # bash takes "=" for a word of its own.
    if [[ "$word" == "=" ]]; then word=
    elif [[ "$before" == "=" ]]; then before="${{COMP_WORDS[COMP_CWORD-2]}}"; fi
    if (( COMP_CWORD == 1 )) && [[ "$word" != -* ]]; then command= words='{names}'
    elif [[ "$command" == -* ]]; then command=run; fi
    case "$command" in
{cases}
    esac
    if [[ "$word" == -* ]]; then words="$options" files=; fi
    if [[ -n "$files" ]]; then
        local IFS=$'\\n'
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$word"))
    else
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    fi
}}
complete -F _fastway fastway"""

ZSH = """\
#compdef fastway
# zsh completion of fastway
_fastway() {{
    local -a commands=(
{names}
    )
    local command=$words[2]
    if (( CURRENT == 2 )) && [[ "$PREFIX" != -* ]]; then
        _describe -t commands command commands
        return
    fi
    if [[ "$command" == -* ]]; then
        command=run
    else
        words=(fastway "${{(@)words[3,-1]}}")
        (( CURRENT-- ))
    fi
    case "$command" in
{cases}
    esac
}}
if [[ "$funcstack[1]" == _fastway ]]; then _fastway "$@"; else compdef _fastway fastway; fi"""


def completion(options: CompletionOptions) -> int:
    """`fastway completion bash|zsh`."""
    shell = operand(options, 0, "bash|zsh")
    scripts = {"bash": bash, "zsh": zsh}
    if shell not in scripts:
        raise ConfigError("completion", f"{shell!r} is neither bash nor zsh")
    print(scripts[shell]())
    return 0


def _choices(command: Command) -> tuple[tuple[str, ...], ...]:
    """What the operands of a command may be."""
    if command.name == "help":
        return (tuple(other.name for other in COMMANDS),)
    return command.choices


def _is_file(command: Command) -> bool:
    return command.operands == "[FILE]"


# bash


def bash() -> str:
    """The script for bash."""
    return BASH.format(
        names=" ".join(command.name for command in COMMANDS),
        cases="\n".join(map(_bash_case, COMMANDS)),
    )


def _bash_case(command: Command) -> str:
    """What may follow, by the word before: an option's value, or an operand or option."""
    rows = []
    for option in command.options.table:
        spelled = f"--{option.name}" + (f"|-{option.short}" if option.short else "")
        if option.words:
            rows.append(f"{spelled}) words='{' '.join(option.words)}' ;;")
        elif option.unit == "path":
            rows.append(f"{spelled}) files=1 ;;")
        elif not option.is_flag:
            rows.append(f"{spelled}) ;;")
    names = [f"--{option.name}" for option in command.options.table]
    words = " ".join(word for choices in _choices(command) for word in choices)
    files = "1" if _is_file(command) else ""
    options = " ".join([*names, "--help", "--version"])
    rows.append(f"*) words='{words}' files={files} options='{options}' ;;")
    inside = "\n".join(f"            {line}" for line in ['case "$before" in', *rows, "esac ;;"])
    return f"        {command.name})\n{inside}"


# zsh


def zsh() -> str:
    """The script for zsh."""
    names = (f"        {_quoted(f'{command.name}:{command.words}')}" for command in COMMANDS)
    return ZSH.format(names="\n".join(names), cases="\n".join(map(_zsh_case, COMMANDS)))


def _zsh_case(command: Command) -> str:
    """What `_arguments` is told of a command."""
    specs = [spec for option in command.options.table for spec in _zsh_option(option)]
    specs.append("'(-h --help)'{-h,--help}'[print help]'")
    specs.append("'(-V --version)'{-V,--version}'[print the version]'")
    for place, words in enumerate(_choices(command), 1):
        specs.append(_quoted(f"{place}: :({' '.join(words)})"))
    if _is_file(command):
        specs.append("'1: :_files'")
    rows = " \\\n".join(f"                {spec}" for spec in specs)
    return f"        {command.name})\n            _arguments -s -S \\\n{rows} ;;"


def _zsh_option(option: Option) -> list[str]:
    """An option in its spellings, as `_arguments` wants it."""
    meaning = option.help
    for special in "[]:":
        meaning = meaning.replace(special, f"\\{special}")
    value = ""
    if option.words:
        value = f":{option.unit}:({' '.join(option.words)})"
    elif option.unit == "path":
        value = ":path:_files"
    elif not option.is_flag:
        value = f":{option.unit}: "
    more = "*" if option.many else ""
    long = f"{more}--{option.name}{'=' if value else ''}[{meaning}]{value}"
    short = f"{more}-{option.short}{'+' if value else ''}[{meaning}]{value}"
    return [_quoted(long), *([_quoted(short)] if option.short else [])]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
