"""Operator declarations: torchvision can be imported after them, in a fresh process, with warnings as errors."""

import subprocess
import sys

CODE = """
import ssl_core.models.torchvision_ops as ops
ops.declare_operators()
import torchvision
print(torchvision.__version__)
"""


def test_torchvision_imports_after_the_declaration():
    done = subprocess.run([sys.executable, "-W", "error", "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
