"""``sphereml VERB ...``: parse the line, import the verb's module, turn a UserError into one line and exit code 2.

Exit codes: 0 done; 2 the user's input is wrong; 130, 143 or 138 stopped by SIGINT, SIGTERM or SIGUSR1; 1 a bug (with
its traceback).  Nothing heavy is imported here, so ``--help`` answers at once; a verb's module adds its arguments in
``add_arguments`` and works in ``run``.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sphereml.cli.allocator import keep_freed_memory
from sphereml.cli.environment import restart_in_utf8, settle_environment, usable_streams
from sphereml.cli.output import MANNER, settle_manner
from sphereml.cli.parsers import TASKS, VERBS, build_parser, load_plugins
from sphereml.cli.parsers import parse_words as _parse
from sphereml.cli.signals import Stopped, stoppable
from sphereml.config.resources import searching
from sphereml.errors import UserError

# What the disc refuses in places that do not expect it.
_OF_THE_DISC = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG)


_TRAINING = ("train", "study", "demo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if arguments is None:
        restart_in_utf8()
    settle_environment()
    with usable_streams():
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(words: list[str]) -> int:
    # OpenMP threads that spin for long starve each other when anything else runs, and those that never spin are slow to
    # wake: a training step takes 1.6 x as long with OMP_WAIT_POLICY=PASSIVE.  torch reads this when it is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    verb = next((word for word in words if word in VERBS), None)
    if verb in _TRAINING:
        keep_freed_memory()
    try:
        with stoppable(), _flushed():
            parser = build_parser(verb)
            options = _parse(parser, words)
            if options.verb is None:
                parser.print_help()
                return 0
            settle_manner(options.quiet, options.verbose, getattr(options, "json", False))
            if options.verb in TASKS:
                load_plugins(options.plugin)
            with searching(getattr(options, "config_dir", [])):
                (_show_configuration if getattr(options, "cfg", None) else options.run)(options)
    except UserError as error:
        return _refused(error)
    except KeyboardInterrupt:
        return _stopped(verb, Stopped(signal.SIGINT))
    except Stopped as stop:
        return _stopped(verb, stop)
    except RecursionError:
        return _refused(UserError("a file is nested too deeply", "give one that is not"))
    except (MemoryError, RuntimeError) as error:
        # torch has no exception of its own for a CPU without memory.
        if isinstance(error, RuntimeError) and not re.search("allocate memory|out of memory", str(error)):
            raise
        return _refused(UserError(f"there is not enough memory ({error})", "ask for less, or use a larger machine"))
    except OSError as error:
        if error.errno not in _OF_THE_DISC:
            raise
        what = f"{error.filename or 'the output'} cannot be used ({error.strerror})"
        return _refused(UserError(what, "see to the disc and its permissions"))
    return 0


def _refused(error: UserError) -> int:
    print(f"sphereml: {error}", file=sys.stderr)
    if MANNER.verbose and error.__cause__:
        print(f"caused by {type(error.__cause__).__name__}: {error.__cause__}", file=sys.stderr)
    return 2


def _show_configuration(options: argparse.Namespace) -> None:
    """What ``--cfg job`` prints, as Hydra does: the composed configuration."""
    from sphereml.config.compose import compose, to_yaml

    print(to_yaml(compose(getattr(options, "usual", list)(options.overrides))).rstrip())


@contextmanager
def _flushed() -> Iterator[None]:
    """What the block printed is out at its end, or a disc that is full is told while it still can be."""
    try:
        yield
    finally:
        sys.stdout.flush()


def _stopped(verb: str | None, stop: Stopped) -> int:
    ways = {
        "train": "; the same line with --resume goes on",
        "study": "; the same line with --resume goes on",
        "demo": "; the same line goes on",
        "simulate": "; the same line goes on",
        "predict": "; the same line goes on",
    }
    print(f"sphereml: {stop}{ways.get(verb or '', '')}", file=sys.stderr)
    return 128 + stop.number


if __name__ == "__main__":
    sys.exit(main())
