"""What the user's code imports, as the requirements of a bundle."""

from importlib import metadata

import pytest

from switchyard.components.user_code.dependencies import requirements

CODE = {
    "own.py": "import os.path\nimport helper\nfrom nets import layers\nimport yaml",
    "helper.py": "try:\n    import not_installed_anywhere\nexcept ImportError:\n    pass\n",
    "nets/__init__.py": "from . import layers\nfrom .layers import f",
    "nets/layers.py": "def f():\n    from google.protobuf import text_format\n    import switchyard\n    import torch.nn",
}


@pytest.fixture
def folder(tmp_path):
    for name, content in CODE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_imported_distributions_are_listed_with_their_versions(folder):
    expected = {name: metadata.version(name) for name in ("protobuf", "PyYAML", "torch")}
    assert requirements([folder, folder / "missing"]) == expected


def test_code_that_imports_nothing_requires_nothing(tmp_path):
    (tmp_path / "own.py").write_text("import json\n")
    assert requirements([tmp_path]) == {}
