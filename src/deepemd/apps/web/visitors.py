"""Everybody who uses the page: who is who, what the page shows to each, and when they are forgotten."""

import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from deepemd.apps.web.session import Visitor
from deepemd.apps.web.uploads import Room, Upload
from deepemd.model import DeepEMD

__all__ = ["FORGOTTEN_AFTER", "Visit", "Visitors"]

FORGOTTEN_AFTER = 3600  # seconds without a request; an open page sends one every two minutes
_MAX_VISITORS = 200  # for more, the oldest visit is forgotten
_MAX_PHOTOS = 25_000  # photos of all visitors, whose nodes take some 3 GB
_MAX_PAGES = 10_000  # pages whose events are answered
_BURST = 60  # requests of one visitor that are accepted at once; after them, one a second
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(eq=False)
class Visit:
    """What the page has of one visitor, whether the page is open or is loaded again.

    Attributes:
        id: the secret that the visitor's browser keeps in a cookie.
        visitor: the classes.
        uploads: files that were uploaded and not used yet, by their token, the oldest first.
        waiting: photos to classify that are not read yet, because others come first.
        shown: the id of the photo whose explanation the page shows.
        before: the visitor before the last change, which can be undone; None if there is nothing to undo.
        forgotten: whether this visitor was forgotten before, and has not been informed.
        last_used: when the last request came.
        allowance: requests that are accepted at once.
    """

    id: str
    visitor: Visitor
    uploads: dict[str, Upload] = field(default_factory=dict)
    waiting: list[Upload] = field(default_factory=list)
    shown: str = ""
    before: Visitor | None = None
    forgotten: bool = False
    last_used: float = 0.0
    allowance: float = _BURST

    @property
    def is_empty(self) -> bool:
        """Whether nothing is lost if this visitor is forgotten."""
        return not (self.visitor.classifier or self.visitor.asked or self.uploads or self.waiting)


class Visitors:
    """The visitors of the page, found by the secret in their cookie.

    Args:
        model: the model that encodes the photos of all visitors.
        room: counts the bytes of uploaded files.
        clock: returns the time in seconds.
    """

    def __init__(self, model: DeepEMD, room: Room, clock: Callable[[], float] = time.monotonic) -> None:
        self.model, self.room, self._clock = model, room, clock
        self._visits: dict[str, Visit] = {}
        self._pages: dict[str, None] = {}
        self._lock = Lock()

    def open(self, id: str = "", *, issued: bool = False) -> Visit:
        """Return the visit of a cookie; if it is not known, a new one, whose visitor is to be informed.

        Args:
            id: the secret in the cookie.
            issued: whether the secret is certainly one of ours; then a new visit has it too.
        """
        with self._lock:
            now = self._clock()
            visit = self._visits.get(id)
            if visit is None or self._is_over(visit, now):
                self._forget([visit] if visit else [])
                known = bool(_ID.fullmatch(id))
                visit = Visit(id if issued and known else secrets.token_hex(32), Visitor(self.model), forgotten=known)
                visit.last_used = now
                self._visits[visit.id] = visit
                self._make_place(visit)
            visit.allowance = min(_BURST, visit.allowance + now - visit.last_used)
            visit.last_used = now
            return visit

    def find(self, id: str) -> Visit | None:
        """Return the visit of a cookie, None if it is not known."""
        return self._visits.get(id)

    def change(self, visit: Visit, visitor: Visitor) -> None:
        """Give a visitor other classes or other photos to classify."""
        with self._lock:
            visit.visitor = visitor
            self._make_place(visit)

    def use_page(self, page: str) -> None:
        """Note that a page has started an event; gradio gives each page a name."""
        with self._lock:
            self._pages.pop(page, None)
            self._pages[page] = None
            if len(self._pages) > _MAX_PAGES:
                self._pages.pop(next(iter(self._pages)))

    def is_known(self, page: str) -> bool:
        """Return whether a page has started an event."""
        return page in self._pages

    def sweep(self) -> None:
        """Forget those who left an hour ago, and remove their files."""
        with self._lock:
            now = self._clock()
            self._forget([visit for visit in self._visits.values() if self._is_over(visit, now)])

    def keep(self, visit: Visit, uploads: Sequence[Upload]) -> None:
        """Add uploaded files to a visit; if they are too many, its oldest unused files are removed."""
        with self._lock:
            visit.uploads.update((upload.token, upload) for upload in uploads)
            if self._visits.get(visit.id) is not visit:  # forgotten during the upload
                self._forget([visit])
            size, most = sum(one.size for one in visit.uploads.values()), self.room.limits
            while len(visit.uploads) > 3 * most.files or (size > most.visitor and len(visit.uploads) > 1):
                oldest = visit.uploads[next(iter(visit.uploads))]
                size -= oldest.size
                self._remove(visit, oldest)

    def take(self, visit: Visit, tokens: Sequence[str]) -> list[Upload]:
        """Take uploaded files out of a visit; those that are gone are left out."""
        with self._lock:
            found = [visit.uploads.pop(token, None) for token in dict.fromkeys(tokens)]
        return [upload for upload in found if upload]

    def next_waiting(self, visit: Visit) -> Upload | None:
        """Take the first photo that waits to be read out of a visit; return None if there is none."""
        with self._lock:
            return visit.waiting.pop(0) if visit.waiting else None

    def done(self, uploads: Sequence[Upload]) -> None:
        """Remove files that were used."""
        with self._lock:
            for upload in uploads:
                upload.remove()
                self.room.give(upload.size)

    def _is_over(self, visit: Visit, now: float) -> bool:
        return now - visit.last_used > FORGOTTEN_AFTER

    def _make_place(self, kept: Visit) -> None:
        """Forget visitors while there is too much: first who has nothing, then who left first."""
        others = [visit for visit in self._visits.values() if visit is not kept]
        others.sort(key=lambda one: (not one.is_empty, one.last_used))
        photos = kept.visitor.photos + sum(visit.visitor.photos for visit in others)
        while others and (len(others) >= _MAX_VISITORS or photos > _MAX_PHOTOS):
            photos -= others[0].visitor.photos
            self._forget([others.pop(0)])

    def _forget(self, visits: Sequence[Visit]) -> None:
        for visit in visits:
            self._visits.pop(visit.id, None)
            for upload in [*visit.uploads.values(), *visit.waiting]:
                self._remove(visit, upload)
            visit.waiting = []

    def _remove(self, visit: Visit, upload: Upload) -> None:
        visit.uploads.pop(upload.token, None)
        upload.remove()
        self.room.give(upload.size)
