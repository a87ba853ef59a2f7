"""What the page does when a button is pressed or photos are dropped, independent of gradio."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepemd.apps.reports.drawing import Drawings
from deepemd.apps.samples import sample_classes, sample_queries
from deepemd.apps.web import fragments
from deepemd.apps.web.session import MAX_UPLOAD, UnreadablePhotos, Visitor
from deepemd.apps.web.visitors import Visit, Visitors
from deepemd.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["GONE", "VISITOR", "Events"]

VISITOR = "x-deepemd-visitor"  # the header of a request that says whose it is
GONE = "x-deepemd-gone"  # and how many of its files are not here any more

_FORGOTTEN = (
    "Whatever you had added here before was forgotten: it is kept for an hour after you leave, unless there are too "
    "many visitors or the page is started again. Add your classes again."
)
_Shown = Iterator[tuple[Any, ...]]  # the message, the classes and the answers, as HTML; then the emptied boxes


@dataclass(frozen=True)
class Events:
    """The actions of the page; each yields what the page then shows, once or several times.

    The first argument of all of them is the headers of the request, to which ``Guard`` adds VISITOR and GONE.

    Args:
        visitors: all visitors.
        same: what leaves a part of the page as it is.
    """

    visitors: Visitors
    same: Any

    def load(self, headers: Mapping[str, str]) -> _Shown:
        """Show what the visitor has added before; if photos wait to be classified, let the page ask for it."""
        visit = self._visit(headers)
        said, classes, answers = self._shown(visit)
        yield said, classes, answers + fragments.RESUME * (bool(visit.waiting) and len(visit.visitor.names) > 1)

    def resume(self, headers: Mapping[str, str]) -> _Shown:
        """Classify the photos that were left when the page was loaded again."""
        for _, classes, answers in self._change(visit := self._visit(headers), visit.visitor, [], []):
            yield self.same, classes, answers

    def add(self, headers: Mapping[str, str], name: str | None, files: Any) -> _Shown:
        """Add photos to a class; the boxes for its name and its photos are emptied if this succeeds."""
        visit, tokens = self._visit(headers), _tokens(files)
        uploads = [visit.uploads[token] for token in tokens if token in visit.uploads]
        try:
            changed, done, wrong = visit.visitor.added(name or "", [(one.path, one.name) for one in uploads])
        except UnreadablePhotos as error:
            self.visitors.done(self.visitors.take(visit, tokens))
            yield *self._shown(visit, wrong=[*_gone(headers), str(error)]), self.same, None
        except InputError as error:
            yield *self._shown(visit, wrong=[*_gone(headers), str(error)]), self.same, self.same
        else:
            self.visitors.done(self.visitors.take(visit, tokens))
            for shown in self._change(visit, changed, done, [*_gone(headers), *wrong]):
                yield *shown, "", None

    def add_samples(self, headers: Mapping[str, str]) -> _Shown:
        """Add the sample classes, then answer the sample queries."""
        visit = self._visit(headers)
        changed = visit.visitor
        try:
            for name, pictures in sample_classes().items():
                changed = changed.without(name).added(name, pictures)[0]
        except InputError as error:
            yield self._shown(visit, wrong=[str(error)])
        else:
            done = ["Three classes were added: cuts of a temple, of a flower and of a portrait."]
            yield from self._change(visit, changed, done, [], sample_queries())

    def remove(self, headers: Mapping[str, str], name: str | None) -> _Shown:
        """Remove a class."""
        visit = self._visit(headers)
        if name in visit.visitor.names:
            yield from self._change(visit, visit.visitor.without(name or ""), [f"'{name}' was removed."], [])
        else:
            yield self._shown(visit, wrong=[f"There is no class '{name}' any more."])

    def ask(self, headers: Mapping[str, str], files: Any) -> _Shown:
        """Classify photos, one after the other, and empty the box; they wait until there are two classes."""
        visit, wrong = self._visit(headers), _gone(headers)
        uploads = self.visitors.take(visit, _tokens(files))
        if len(uploads) + len(visit.waiting) > MAX_UPLOAD:
            self.visitors.done(uploads)
            uploads, wrong = [], [*wrong, f"{len(uploads)} photos are too many: at most {MAX_UPLOAD} at once"]
        if uploads:
            visit.answers = ""
            visit.waiting += uploads
        for shown in self._change(visit, visit.visitor, [], wrong):
            yield *shown, None

    def _change(
        self,
        visit: Visit,
        changed: Visitor,
        done: Sequence[str],
        wrong: Sequence[str],
        samples: "Sequence[Image]" = (),
    ) -> _Shown:
        """Give a visitor other classes, and classify the photos that wait for them."""
        if changed is not visit.visitor:
            if visit.answers:
                done = [*done, "The answers were removed: they were given with other classes."]
            self.visitors.change(visit, changed)
            visit.answers = ""
        yield self._shown(visit, done, wrong)
        drawings = Drawings()
        for answer in changed.ask(samples) if samples else ():
            visit.answers += fragments.answer(answer, drawings)
            yield self.same, self.same, visit.answers
        # One by one, so that the others are still there if the page is left or loaded again in between.
        while len(changed.names) > 1 and (upload := self.visitors.next_waiting(visit)):
            try:
                (answer,) = changed.ask([(upload.path, upload.name)])
            finally:
                self.visitors.done([upload])
            visit.answers += fragments.answer(answer, drawings)
            yield self.same, self.same, visit.answers

    def _shown(self, visit: Visit, done: Sequence[str] = (), wrong: Sequence[str] = ()) -> tuple[str, str, str]:
        """Return all that the page shows."""
        if visit.forgotten:
            visit.forgotten, wrong = False, [_FORGOTTEN, *wrong]
        names = visit.visitor.names
        answers = visit.answers
        if visit.waiting and len(names) < 2:
            answers = fragments.waiting(names, len(visit.waiting))
        return fragments.messages(done, wrong), fragments.classes(visit.visitor), answers

    def _visit(self, headers: Mapping[str, str]) -> Visit:
        return self.visitors.open(headers.get(VISITOR, ""), issued=True)


def _tokens(files: Any) -> list[str]:
    """Return what refers to the uploaded files of an event."""
    return [Path(str(one["path"])).name for one in files or [] if isinstance(one, dict) and "path" in one]


def _gone(headers: Mapping[str, str]) -> list[str]:
    """Return a message on the files of an event that are not here any more."""
    count = int(headers.get(GONE, "0"))
    photos = "1 photo is" if count == 1 else f"{count} photos are"
    return [f"{photos} not here any more: remove them from the box, and drop them again"] if count else []
