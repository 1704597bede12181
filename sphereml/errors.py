"""The one exception that means "the user's input is wrong".

The command line prints it as a single line and exits with code 2; every other exception is a bug of ours (code 1).
"""

from __future__ import annotations


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
