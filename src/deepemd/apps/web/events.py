"""What the page does when a button is pressed or photos are dropped, independent of gradio."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepemd.apps.samples import sample_classes, sample_queries
from deepemd.apps.web import fragments, gallery
from deepemd.apps.web.models import with_model
from deepemd.apps.web.session import MAX_ASKED, UnreadablePhotos, Visitor
from deepemd.apps.web.visitors import Visit, Visitors
from deepemd.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["GONE", "VISITOR", "Events"]

VISITOR = "x-deepemd-visitor"  # the header of a request that says whose it is
GONE = "x-deepemd-gone"  # and how many of its files are not here any more

_FORGOTTEN = (
    "Whatever you had added here before was forgotten: it is kept for an hour after you leave, unless there are too "
    "many visitors or the page is started again. Add your classes again, or open those that you saved."
)
_Shown = Iterator[tuple[Any, ...]]
"""HTML: the messages, the classes, the gallery and the explanation of one answer; then the emptied boxes."""


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
        said, classes, asked, answer = self._shown(visit)
        yield said, classes, asked, answer + fragments.RESUME * bool(visit.waiting)

    def resume(self, headers: Mapping[str, str]) -> _Shown:
        """Classify the photos that were left when the page was loaded again."""
        visit = self._visit(headers)
        for _, classes, asked, answer in self._show(visit):
            yield self.same, classes, asked, answer

    def add(self, headers: Mapping[str, str], name: str | None, files: Any, snapshot: Any) -> _Shown:
        """Add photos to a class; the boxes for its name and its photos are emptied if this succeeds."""
        visit, tokens = self._visit(headers), [*_tokens(files), *_tokens(snapshot)]
        uploads = [visit.uploads[token] for token in tokens if token in visit.uploads]
        try:
            changed, done, wrong = visit.visitor.added(name or "", [(one.path, one.name) for one in uploads])
        except UnreadablePhotos as error:
            self.visitors.done(self.visitors.take(visit, tokens))
            yield *self._shown(visit, wrong=[*_gone(headers), str(error)]), self.same, None, None
        except InputError as error:
            yield *self._shown(visit, wrong=[*_gone(headers), str(error)]), *[self.same] * 3
        else:
            self.visitors.done(self.visitors.take(visit, tokens))
            self._change(visit, changed)
            for shown in self._show(visit, done, [*_gone(headers), *wrong], undo=True):
                yield *shown, "", None, None

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
            self._change(visit, changed)
            visit.shown = ""
            yield from self._show(visit, done, samples=sample_queries(), undo=True)

    def open(self, headers: Mapping[str, str], files: Any) -> _Shown:
        """Open the classes that a zip holds, in place of those of the visitor."""
        visit = self._visit(headers)
        uploads = self.visitors.take(visit, _tokens(files))
        if len(uploads) != 1:
            self.visitors.done(uploads)
            yield self._shown(visit, wrong=[*_gone(headers), "Choose one zip of classes"])
            return
        (upload,) = uploads
        try:
            changed = with_model(visit.visitor, upload.path, upload.name, self.visitors.room.folder)
        except InputError as error:
            yield self._shown(visit, wrong=[str(error)])
            return
        finally:
            self.visitors.done(uploads)
        done = [f"{len(changed.names)} classes were opened from {upload.name}."]
        if visit.visitor.names:
            done.append(f"They replace those of before: {', '.join(visit.visitor.names)}.")
        self._change(visit, changed)
        yield from self._show(visit, done, undo=True)

    def ask(self, headers: Mapping[str, str], files: Any) -> _Shown:
        """Classify photos, one after the other, and empty the box; they wait until there are two classes."""
        visit, wrong = self._visit(headers), _gone(headers)
        uploads = self.visitors.take(visit, _tokens(files))
        if isinstance(files, dict):  # of the camera, whose photos all have the same name
            number = len(visit.visitor.asked) + len(visit.waiting) + 1
            uploads = [replace(one, name=f"camera-{number}.png") for one in uploads]
        room = MAX_ASKED - len(visit.visitor.asked) - len(visit.waiting)
        if len(uploads) > room:
            self.visitors.done(uploads)
            wrong.append(
                f"{len(uploads)} photos are too many: at most {MAX_ASKED} are kept, and there is room for {room}. "
                "Download the table, then remove the photos"
            )
            uploads = []
        if uploads:
            visit.shown = ""
            visit.waiting += uploads
        for shown in self._show(visit, notes=fragments.messages(wrong=wrong)):
            yield *shown, None

    def show(self, headers: Mapping[str, str], id: str | None) -> Iterator[str]:
        """Show the explanation of one answer: yield its HTML alone."""
        visit = self._visit(headers)
        visit.shown = id or ""
        yield self._answer(visit)

    def act(self, headers: Mapping[str, str], text: str | None) -> _Shown:
        """Do what a button in the classes or in the answers says: see :func:`deepemd.apps.web.fragments.act`."""
        visit, before = self._visit(headers), self._visit(headers).visitor
        action = _action(text)
        name, photo = action.get("class", ""), action.get("photo", "")
        what, notes = action.get("do"), ""
        changed, done, wrong = before, list[str](), list[str]()
        if what == "remove":
            changed, done = before.without(name), [f"'{name}' was removed."]
        elif what == "remove photo" and photo.isdecimal():
            changed, done = before.without_photo(name, int(photo)), [f"A photo of '{name}' was removed."]
        elif what == "correct":
            try:
                changed = before.corrected(photo, name)
                notes = fragments.messages([f"The photo was added to '{name}', and all answers are new."], undo=True)
            except InputError as error:
                notes = fragments.messages(wrong=[str(error)])
        elif what == "clear":
            changed = replace(before, asked=())
            notes = fragments.messages(["The photos to classify were removed."], undo=True)
        elif what == "undo" and visit.before is not None:
            changed, done = before.back(visit.before), ["The last change was undone."]
        elif what == "undo":
            wrong = ["There is nothing to undo"]
        if changed is before and done:
            done, wrong = [], [f"There is no class '{name}' any more, or not this photo"]
        if changed is not before:
            self._change(visit, changed)
        yield from self._show(visit, done, wrong, notes=notes, undo=what != "undo")

    def _change(self, visit: Visit, changed: Visitor) -> None:
        """Give a visitor other classes or photos to classify, which can be undone."""
        visit.before = visit.visitor
        self.visitors.change(visit, changed)

    def _show(
        self,
        visit: Visit,
        done: Sequence[str] = (),
        wrong: Sequence[str] = (),
        *,
        notes: str = "",
        samples: "Sequence[Image]" = (),
        undo: bool = False,
    ) -> _Shown:
        """Show everything, then classify the photos that wait.

        Args:
            visit: whose page it is.
            done, wrong: messages, above the classes.
            notes: messages above the answers, as HTML.
            samples: photos to classify first.
            undo: whether what was done can be undone.
        """
        yield self._shown(visit, done, wrong, notes=notes, undo=undo)
        for number, picture in enumerate(samples, 1):
            yield self._asked(visit, visit.visitor.ask(picture, f"example {number}"), notes)
        # One by one, so that the others are still there if the page is left or loaded again in between.
        while upload := self.visitors.next_waiting(visit):
            try:
                changed = visit.visitor.ask((upload.path, upload.name))
            finally:
                self.visitors.done([upload])
            yield self._asked(visit, changed, notes)

    def _asked(self, visit: Visit, changed: Visitor, notes: str) -> tuple[Any, ...]:
        """Return what the page shows when another photo was classified; the first of several is explained."""
        self.visitors.change(visit, changed)
        new = changed.asked[-1]
        first = not visit.shown and not new.error
        visit.shown = visit.shown or ("" if new.error else new.id)
        answer = notes + self._answer(visit) if first else self.same
        return self.same, self.same, gallery.gallery(changed, visit.shown), answer

    def _shown(
        self, visit: Visit, done: Sequence[str] = (), wrong: Sequence[str] = (), *, notes: str = "", undo: bool = False
    ) -> tuple[str, str, str, str]:
        """Return all that the page shows."""
        if visit.forgotten:
            visit.forgotten, wrong = False, [_FORGOTTEN, *wrong]
        said = fragments.messages(done, wrong, undo=undo and visit.before is not None)
        asked = gallery.gallery(visit.visitor, visit.shown)
        return said, fragments.classes(visit.visitor), asked, notes + self._answer(visit)

    def _answer(self, visit: Visit) -> str:
        """Return the explanation of the photo that is chosen, below what can be done with all of them."""
        found = visit.visitor.answer(visit.shown)
        drawn = gallery.answer(found) if found else ""
        return gallery.tools(visit.visitor) + gallery.waiting(visit.visitor) + drawn

    def _visit(self, headers: Mapping[str, str]) -> Visit:
        return self.visitors.open(headers.get(VISITOR, ""), issued=True)


def _tokens(files: Any) -> list[str]:
    """Return what refers to the uploaded files of an event."""
    files = [files] if isinstance(files, dict) else files
    return [Path(str(one["path"])).name for one in files or [] if isinstance(one, dict) and "path" in one]


def _gone(headers: Mapping[str, str]) -> list[str]:
    """Return a message on the files of an event that are not here any more."""
    count = int(headers.get(GONE, "0"))
    photos = "1 photo is" if count == 1 else f"{count} photos are"
    return [f"{photos} not here any more: remove them from the box, and drop them again"] if count else []


def _action(text: str | None) -> dict[str, str]:
    """Return the action of a button; empty if the text is none."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    found = found.items() if isinstance(found, dict) else ()
    # Without halves of characters, which JSON can write and no page can show.
    return {key: one.encode("utf-8", "replace").decode() for key, one in found if isinstance(one, str)}
