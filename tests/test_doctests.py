"""Every example in a docstring is run."""

import doctest
import importlib
import pkgutil

import pytest

import deepemd

MODULES = [m.name for m in pkgutil.walk_packages(deepemd.__path__, "deepemd.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert examples > 30
