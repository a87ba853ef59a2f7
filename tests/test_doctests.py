"""Every example in a docstring and in the docs is run."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import deepemd

MODULES = [m.name for m in pkgutil.walk_packages(deepemd.__path__, "deepemd.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert result.failed == 0


PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_examples_of_the_docs(page):
    """The snippets of a page are one session."""
    snippets = "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
    test = doctest.DocTestParser().get_doctest(snippets, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(test).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert examples > 30
