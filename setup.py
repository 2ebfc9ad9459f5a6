"""The wheel's own build step: Segment's script for browsers, where npm can fetch it (docs/sdks.md)."""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithScript(build_py):
    """`tools/analytics_js.sh` says on stderr if there is no script, and fails only if it is not the reviewed one."""

    def run(self) -> None:
        tool = Path(__file__).parent / "tools" / "analytics_js.sh"
        if tool.is_file() and not self.editable_mode:
            subprocess.run(["bash", str(tool)], check=True)
        super().run()


setup(cmdclass={"build_py": BuildWithScript})
