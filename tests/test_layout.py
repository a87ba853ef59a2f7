"""Imports go one way, the package stays light, and the public names are those that are documented."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import deepemd

SOURCE = Path(deepemd.__file__).parent
# A part may import those named here, and itself.
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "pieces": set(),
    "processes": {"errors"},
    "emd": set(),
    "matching": {"emd", "pieces"},
    "nodes": {"errors"},
    "data": {"files", "processes", "errors"},
    "saved": {"files", "errors"},
    "hub": {"errors"},
    "model": {"matching", "nodes", "saved", "hub", "errors"},
    "pretrained": {"nodes", "model", "saved", "hub", "errors"},
    "checkpoints": {"nodes", "model", "errors"},
    "training": {"emd", "matching", "nodes", "data", "model", "saved", "files", "pieces", "processes", "errors"},
    "bench": {"emd", "files", "errors"},
    "apps": {
        *("emd", "matching", "nodes", "data", "model", "pretrained", "saved", "training", "files", "processes"),
        "errors",
    },
    "commands": {
        *("emd", "files", "data", "nodes", "model", "saved", "pretrained", "checkpoints", "training", "apps", "bench"),
        *("processes", "errors"),
    },
    "cli": {"commands", "processes", "errors"},
    "__main__": {"cli"},
}


def _imports(path: Path) -> set[str]:
    """The parts of deepemd that a file imports, or names in a string such as "deepemd.commands.data:data_list"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deepemd."):
            found.add(node.module.split(".")[1])
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("deepemd.")}
        if isinstance(node, ast.ImportFrom) and node.module == "deepemd":  # a part, or a public name
            found |= {deepemd._HOMES.get(alias.name, f"deepemd.{alias.name}").split(".")[1] for alias in node.names}
        if isinstance(node, ast.Constant) and re.fullmatch(r"deepemd(\.\w+)+:\w+", str(node.value)):
            found.add(node.value.split(":")[0].split(".")[1])
    return found


def test_imports_go_one_way():
    seen = set()
    for path in SOURCE.rglob("*.py"):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        seen.add(part)
        wrong = _imports(path) - MAY_IMPORT[part] - {part}
        assert not wrong, f"{path.relative_to(SOURCE)} imports {wrong}"
    assert seen == set(MAY_IMPORT)


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
    code += "; import deepemd.pretrained"
    heavy = {"pytorch_lightning", "matplotlib", "kornia", "PIL", "rich", "jsonargparse", "tensorboard", "sklearn"}
    heavy |= {"transformers", "huggingface_hub", "efficientnet_lite_pytorch"}
    loaded = _modules_after(code)
    assert "torch" in loaded
    assert not loaded & heavy


def test_emd_is_the_function_in_whatever_order_things_are_imported():
    then = "from deepemd import emd\nassert emd.__name__ == 'emd', emd\nimport deepemd\nassert deepemd.emd is emd"
    for first in ("import deepemd.emd", "import deepemd", "from deepemd.emd import Transport", "import deepemd.model"):
        subprocess.run([sys.executable, "-c", f"{first}\n{then}"], check=True)


def test_public_names():
    assert sorted(deepemd.__all__) == sorted(
        [
            *("DeepEMD", "FCN", "FewShotClassifier", "Grid", "InputError", "Sampling", "Transport"),
            *("conv4", "emd", "emd_logits", "fit_prototypes", "plot_matching", "resnet12"),
        ]
    )
    assert all(getattr(deepemd, name).__doc__ for name in deepemd.__all__)
