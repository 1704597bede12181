"""What is here of a file that is being downloaded, and which version of it that is.

Conventions: bytes gather in ``NAME.partial``; ``NAME.partial.json`` says which version of which address they are of.
A cut download goes on only if the server still has that version (strong ETag, else Last-Modified; RFC 9110, 13.1.5):
splicing two versions would make a file of the right length and the wrong content.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from sphereml.data.whole_files import read_sealed_json, sealed_json, write_atomically


@dataclass(frozen=True)
class Version:
    """One version of the file at one address; ``length`` in bytes, not ``framed`` when no cut could be noticed."""

    url: str
    etag: str = ""
    modified: str = ""
    length: int | None = None
    framed: bool = True

    @property
    def validator(self) -> str:
        """What If-Range may carry; empty when a resumed download could not be trusted."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def contradicts(self, other: Version) -> bool:
        """Whether the two are known to differ; a server may leave out what it said before."""
        pairs = ((self.etag, other.etag), (self.modified, other.modified), (self.length, other.length))
        return any(one and two and one != two for one, two in pairs)


@dataclass(frozen=True)
class Partial:
    """A download under way to ``target``."""

    target: Path

    @property
    def path(self) -> Path:
        return self.target.with_name(f"{self.target.name}.partial")

    @property
    def record(self) -> Path:
        return self.target.with_name(f"{self.target.name}.partial.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> Version | None:
        """What the bytes are of, if that is known."""
        try:
            return Version(**read_sealed_json(self.record))
        except (OSError, ValueError, TypeError):
            return None

    def is_complete(self) -> bool:
        version = self.version()
        return version is not None and version.length == self.size() > 0

    def begin(self, version: Version) -> None:
        """Start from zero.  The old bytes go first: under a new record they would be taken for the new version's."""
        self.path.write_bytes(b"")
        self.note(version)

    def note(self, version: Version) -> None:
        write_atomically(self.record, sealed_json(asdict(version)))

    def discard(self) -> None:
        # Truncated, not removed: whoever waits for this file's lock waits on this very file.
        self.path.write_bytes(b"")
        self.record.unlink(missing_ok=True)
