"""The command line: one file a sub-command, each a thin call into the library."""

import logging
import os
import signal
import sys
import warnings

DESCRIPTION = "Implicit 3D morphable models of the head."

OPTIONAL = ("demo", "models")
"""Commands that need no argument; the others, given none, explain themselves."""


def main() -> None:
    """Entry point of `implicit3dmm`; see `run` for the exit codes."""
    _prepare_process()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command.

    Results go to the standard output, everything else to the error stream.

    Returns:
        The exit code: 0 done; 3 a scan was fitted that is no head; 2 the input cannot be used, the machine refused
        (disk, memory), or the user interrupted, with one line on the error stream that says which.
    """
    from implicit3dmm.cli.common import tell
    from implicit3dmm.errors import InputError

    try:
        return _dispatch(arguments) or 0
    except InputError as error:
        tell(str(error))
    except KeyboardInterrupt as stop:
        tell(f"interrupted; {str(stop) or 'nothing half-written was left'}")
    except MemoryError as error:
        tell(f"not enough memory ({error}); lower the resolution or the number of points")
    except BrokenPipeError:  # who reads the output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it ends
        return 0
    except OSError as error:
        tell(f"{error}; check the disk and the files' permissions")
    return 2


def _dispatch(arguments: list[str]) -> int | None:
    from contextlib import redirect_stdout

    import tyro

    from implicit3dmm.cli.commands import COMMANDS

    def call(words: list[str]) -> int | None:
        return tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="implicit3dmm",
            description=DESCRIPTION,
            args=words,
            config=(tyro.conf.FlagCreatePairsOff,),
        )

    bare = not arguments or (len(arguments) == 1 and arguments[0] in COMMANDS.keys() - set(OPTIONAL))
    if not bare:
        return call(arguments)
    try:
        with redirect_stdout(sys.stderr):
            call([*arguments, "--help"])
    except SystemExit:
        return 2


def _prepare_process() -> None:
    """What holds for the whole process, which only the program itself may decide."""
    # OpenMP threads that spin while they wait take a busy machine's cores from each other: up to sixty times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A scheduler's or shell's polite kill ends as Ctrl-C does: temporary files go, finished work stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # file names need not be valid text
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # they speak to programmers; python -W shows them
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logging.getLogger("implicit3dmm").addHandler(handler)
    # Commands say themselves what an extraction may have missed.
    logging.getLogger("implicit3dmm.geometry.isosurface").setLevel(logging.ERROR)


class _OneLine(logging.Formatter):
    """A line for each record, with the error that it is about but without a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        error = f" ({record.exc_info[1]})" if record.exc_info else ""
        return f"implicit3dmm: {record.getMessage()}{error}".replace("\n", " ")
