"""Torchvision can be imported after its operators were declared, in a fresh process, with warnings as errors."""

import subprocess
import sys


def test_torchvision_imports_after_the_declaration():
    code = "import ssl_core.models.torchvision_ops as ops; ops.declare_operators(); import torchvision; print(torchvision.__version__)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
