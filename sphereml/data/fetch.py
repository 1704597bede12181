"""Products into the data folder, several files at a time.

Conventions: what the user already has is adopted, the rest is downloaded (see ``data.acquisition``).  A file without a
known checksum, or whose checksum is provisional, is pinned when it first comes (see ``data.holdings``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread

from sphereml.data.acquisition import Acquisition, Fetched, Request, copy_at
from sphereml.data.downloads import Watch
from sphereml.data.holdings import refuse_full
from sphereml.data.manifests import Product, ProductFile
from sphereml.data.partials import Partial
from sphereml.data.whole_files import refuse_unwritable
from sphereml.errors import UserError

GRACE = 2.0  # seconds that an interrupted download gets to end by itself


def fetch_products(products: Sequence[Product], request: Request, watch: Watch) -> list[Fetched]:
    """Bring every file of the products; those that fail do not keep the others from coming.

    Returns:
        the files in no particular order.
    Raises:
        UserError: a file cannot be had (of several, the first is named), ``source`` is no folder or has none of the
            files, the data folder cannot be written, or its disc has no room.
        KeyboardInterrupt: passed on once the downloads have stopped; partial files are kept.
    """
    if request.jobs < 1:
        raise UserError(f"--jobs {request.jobs} is not a number of downloads", "give 1 or more")
    files = list({file.name: file for product in products for file in _wanted(product, request)}.values())
    _refuse_useless_source(files, request)
    _refuse_unready(files, request)
    stop = Event()
    acquisitions = [Acquisition(file, request, watch, stop) for file in files]
    results = _run_all(acquisitions, request.jobs, stop)
    for failure in results:
        if isinstance(failure, BaseException) and not isinstance(failure, UserError):
            raise failure
    _refuse_failures([one for one in results if isinstance(one, UserError)], len(files), watch)
    return [one for one in results if isinstance(one, Fetched)]


def _wanted(product: Product, request: Request) -> Iterator[ProductFile]:
    """The single files of a product; a glob that matches nothing stays, to be refused like any other file."""
    for entry in product.files:
        files = {file.name: file for file in request.holdings.files(entry)}
        if entry.is_glob and request.source is not None:
            files |= {path.name: entry.called(path.name) for path in sorted(request.source.glob(entry.name))}
        yield from files.values() or [entry]


def _refuse_useless_source(files: Sequence[ProductFile], request: Request) -> None:
    source = request.source
    if source is not None and not source.is_dir():
        raise UserError(f"--from {source} is not a folder", "give the folder that holds the files")
    missing = [file for file in files if not request.holdings.find(file.name)]
    if missing and source is not None and not any(copy_at(source, file.name) for file in files):
        raise UserError(f"none of the files is in {source}", f"they have names such as {files[0].name}")


def _refuse_unready(files: Sequence[ProductFile], request: Request) -> None:
    holdings = request.holdings
    refuse_unwritable(holdings.folder)
    try:
        holdings.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {holdings.folder} ({error.strerror})", "choose another with --to") from None
    missing = [file for file in files if not holdings.find(file.name) and not copy_at(request.source, file.name)]
    if missing and not request.offline:
        needed = sum(max((file.bytes or 0) - Partial(holdings.path(file.name)).size(), 0) for file in missing)
        refuse_full(holdings.folder, needed, f"{len(missing)} files" if len(missing) > 1 else missing[0].name)


def _run_all(acquisitions: Sequence[Acquisition], jobs: int, stop: Event) -> list[Fetched | BaseException]:
    """Run them in daemon threads: one that hangs in a dead connection cannot keep Ctrl-C from ending the program."""
    waiting: SimpleQueue[Acquisition] = SimpleQueue()
    results: SimpleQueue[Fetched | BaseException] = SimpleQueue()
    for acquisition in acquisitions:
        waiting.put(acquisition)

    def work() -> None:
        while not stop.is_set():
            try:
                acquisition = waiting.get_nowait()
            except Empty:
                return
            try:
                results.put(acquisition.run())
            except BaseException as error:
                results.put(error)

    threads = [Thread(target=work, daemon=True) for _ in range(min(jobs, len(acquisitions)))]
    try:
        for thread in threads:
            thread.start()
        return [results.get() for _ in acquisitions]
    except KeyboardInterrupt:
        stop.set()
        for thread in threads:
            thread.join(GRACE / len(threads))
        raise


def _refuse_failures(failures: Sequence[UserError], total: int, watch: Watch) -> None:
    if len(failures) == 1:
        raise failures[0]
    for failure in failures:
        watch.say(str(failure))
    if failures:
        first = failures[0]
        raise UserError(f"{len(failures)} of {total} files could not be fetched, the first: {first.what}", first.mend)
