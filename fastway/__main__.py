"""The console command: `fastway COMMAND [options]`, or `fastway [options]` for a gateway.

Rule: nothing is imported but within `main`. That takes half a second, and Ctrl-C is one line then
too.
"""

import sys


def main(arguments: "list[str] | tuple[str, ...] | None" = None) -> int:
    """The entry point; returns the exit status.

    Args:
        arguments: None: those of this process, which ends with the command.
    """
    title = "fastway"
    try:
        given = sys.argv[1:] if arguments is None else arguments
        if given and given[0][:1] != "-" and given[0].replace("-", "_").isidentifier():
            title += f" {given[0]}"

        from fastway.cli.interrupts import caught

        with caught(title, ends=arguments is None):
            from fastway.cli.console import main as console

            return console(given)
    except KeyboardInterrupt:
        sys.stderr.write(f"{title}: interrupted\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
