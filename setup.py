"""Builds the package for pip: all modules lie inside of `anomalycd`, so that no name such as `config` is taken."""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MODULES = ("config", "utils", "img_io", "stage1_analysis", "stage2_analysis", "eval_metrics")
PACKAGES = ("cli", "sam", "rasters", "evaluation", "pipeline")
OWN = "|".join((*MODULES, *PACKAGES))


class BuildInside(build_py):
    """Adds the modules and packages of the root folder to `anomalycd`, and changes their imports."""

    def run(self) -> None:
        """Build the package."""
        super().run()
        for path, target in self.targets().items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(inside(path.read_text(encoding="utf-8")), encoding="utf-8")

    def targets(self) -> dict[Path, Path]:
        """Return where the modules of the root folder, of its packages, and of `anomalycd` are written."""
        package = Path(self.build_lib, "anomalycd")
        targets = {ROOT / f"{name}.py": package / f"{name}.py" for name in MODULES}
        for folder, target in {"anomalycd": package, **{name: package / name for name in PACKAGES}}.items():
            targets |= {path: target / path.name for path in (ROOT / folder).glob("*.py")}
        return targets

    def get_source_files(self) -> list[str]:
        """Return the files of a source distribution."""
        return [str(path.relative_to(ROOT)) for path in self.targets()]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return the files that `run` writes."""
        return [str(path) for path in self.targets().values()]


def inside(source: str) -> str:
    r"""Return the text of a module that imports the project's modules from `anomalycd`.

    >>> print(inside("import config\nfrom sam.engine import SamEngine\nfrom torch import Tensor"))
    from anomalycd import config
    from anomalycd.sam.engine import SamEngine
    from torch import Tensor
    """
    source = re.sub(rf"^(\s*)import ({OWN})$", r"\1from anomalycd import \2", source, flags=re.MULTILINE)
    return re.sub(rf"^(\s*)from ({OWN})\b(.* import )", r"\1from anomalycd.\2\3", source, flags=re.MULTILINE)


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildInside})
