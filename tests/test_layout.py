"""Imports go one way, the package stays light, and the public names are those that are documented."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import deepemd

SOURCE = Path(deepemd.__file__).parent
TESTS = Path(__file__).parent

# A file may import from its own room and from the lines above, and from no other room of its own line.
LAYERS = [
    "errors versions",
    "files processes threads arrays checks streams",
    "json_files progress device results",
    "transport",
    "matching nodes data",
    "model",
    "embedding",
    "evaluation explain",
    "classifier training",
    "apps.reports apps.samples bench",
    "apps.photos apps.retrieval apps.demo apps.easyfsl",
    "apps.web",
    "apps.serve",
    "commands parsing",
    "cli",
    "__main__",
]
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms.split()}


def _module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(path): path for path in SOURCE.rglob("*.py")}


def _imports(path: Path) -> set[str]:
    """The modules of deepemd that a file imports, for its types or inside a function too, or names in a string such as
    "deepemd.commands.data:data_list"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {node.module} if not names & set(MODULES) else names & set(MODULES)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.Constant) and re.fullmatch(r"deepemd(\.\w+)+:\w+", str(node.value)):
            found.add(str(node.value).split(":")[0])
    return {name for name in found if name.split(".")[0] == "deepemd"}


GRAPH = {name: _imports(path) for name, path in MODULES.items()}


def _room(module: str) -> str:
    parts = module.split(".")[1:]
    return ".".join(parts[:2]) if parts[0] == "apps" and len(parts) > 1 else parts[0]


def test_imports_go_one_way():
    wrong = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        if name not in ("deepemd", "deepemd.apps")
        for other in others
        if other == "deepemd" or (_room(other) != _room(name) and LAYER[_room(other)] >= LAYER[_room(name)])
    ]
    assert not wrong
    assert {_room(name) for name in MODULES if name not in ("deepemd", "deepemd.apps")} == set(LAYER)


def test_no_files_import_each_other_even_by_way_of_others():
    """Where there is no circle, removing whatever imports nothing any more ends with nothing."""
    left = {name: others & set(GRAPH) for name, others in GRAPH.items()}
    while ready := {name for name, others in left.items() if not others}:
        left = {name: others - ready for name, others in left.items() if name not in ready}
    assert not left


def test_every_module_has_its_tests():
    """By a test file of the same place and name, or by one whose first lines name the module."""
    named = set()
    for path in TESTS.rglob("test_*.py"):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        named |= set(re.findall(r"deepemd(?:\.\w+)+", text))
        own = path.relative_to(TESTS).with_name(path.name.removeprefix("test_")).with_suffix("")
        named.add(".".join(("deepemd", *own.parts)))
    faces = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    missing = {name for name in MODULES if name not in faces and name not in named}
    assert not missing


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('MODULES', *sys.modules)"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {name.split(".")[0] for name in done.stdout.rpartition("MODULES")[2].split()}


def test_help_loads_neither_torch_nor_numba():
    assert not _modules_after("from deepemd.cli import main; main(['--help'])") & {"torch", "numba", "numpy", "rich"}


def test_the_library_loads_nothing_heavier_than_torch_and_numba():
    code = "import deepemd; [getattr(deepemd, name) for name in deepemd.__all__ if name != 'FewShotClassifier']"
    code += "; import deepemd.model.pretrained"
    heavy = {"pytorch_lightning", "matplotlib", "kornia", "PIL", "rich", "jsonargparse", "tensorboard", "sklearn"}
    heavy |= {"transformers", "huggingface_hub", "efficientnet_lite_pytorch"}
    loaded = _modules_after(code)
    assert "torch" in loaded
    assert not loaded & heavy


def test_classifying_photos_does_not_wait_for_scikit_learn():
    assert "sklearn" not in _modules_after("import deepemd.commands.predict, deepemd.apps.photos.predict_page")


def test_emd_is_the_function_in_whatever_order_things_are_imported():
    then = "from deepemd import emd\nassert emd.__name__ == 'emd', emd\nimport deepemd\nassert deepemd.emd is emd"
    for first in ("import deepemd.transport", "import deepemd", "import deepemd.transport.solvers as s"):
        subprocess.run([sys.executable, "-c", f"{first}\n{then}"], check=True)


def test_public_names():
    assert sorted(deepemd.__all__) == sorted(
        [
            *("DeepEMD", "FCN", "FewShotClassifier", "Grid", "InputError", "Sampling", "Transport"),
            *("conv4", "emd", "emd_logits", "fit_prototypes", "plot_matching", "resnet12"),
        ]
    )
    assert all(getattr(deepemd, name).__doc__ for name in deepemd.__all__)
