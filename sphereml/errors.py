"""The one exception that means "the user's input is wrong".

The command line prints it as a single line and exits with code 2; every other exception is a bug of ours (code 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class UserError(Exception):
    """What is wrong with the input and how to mend it, in one line.

    Args:
        what: the fault, naming the file, key or value, e.g. ``"mask.fits has Nside 32 but dust.fits has 64"``.
        mend: what the user can do, e.g. ``"degrade both with `sphereml data prepare` first"``.

    Example:
        >>> import sphereml as sm
        >>> print(sm.UserError("mask.fits has Nside 32 but dust.fits has 64", "bring both to one Nside"))
        mask.fits has Nside 32 but dust.fits has 64: bring both to one Nside
    """

    def __init__(self, what: str, mend: str) -> None:
        self.what = " ".join(what.split())
        self.mend = " ".join(mend.split())
        super().__init__(f"{self.what}: {self.mend}")

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str]]:
        """As it is sent from one process to another."""
        return type(self), (self.what, self.mend)


def refuse_all(faults: Sequence[UserError]) -> None:
    """Raise one UserError that lists all of these, in one line; nothing when there is none.

    Example:
        >>> refuse_all([UserError("a.fits is truncated", "fetch it again"), UserError("b.fits has no unit", "give it")])
        Traceback (most recent call last):
            ...
        sphereml.errors.UserError: 2 faults: (1) a.fits is truncated: fetch it again; (2) b.fits has no unit: give it
    """
    different = list({str(fault): fault for fault in faults}.values())
    if len(different) == 1:
        raise different[0]
    if different:
        listed = [f"({number}) {fault.what}: {fault.mend}" for number, fault in enumerate(different, start=1)]
        *first, _ = listed
        last = f"({len(listed)}) {different[-1].what}"
        raise UserError(f"{len(different)} faults: " + "; ".join([*first, last]), different[-1].mend)


def meant(word: str, known: Iterable[object], cutoff: float = 0.6) -> str:
    """The beginning of a mend, ``"did you mean X? or "``, for the known word that is close; nothing where none is.

    Example:
        >>> meant("trian", ["train", "study"]) + "see the list"
        'did you mean train? or see the list'
    """
    from difflib import get_close_matches

    names = [str(one) for one in known]
    begun = [name for name in names if word and name.startswith(word)]
    close = begun if len(begun) == 1 else get_close_matches(word, names, n=1, cutoff=cutoff)
    return f"did you mean {close[0]}? or " if close else ""
