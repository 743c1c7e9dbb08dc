"""The one step that pyproject.toml cannot describe: a wheel carries the notebooks, as `srbook/notebooks/`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithNotebooks(build_py):
    """Copy `notebooks/*.ipynb` into the package that is being built."""

    def _notebooks(self) -> dict[str, str]:
        """Where each comes from, by where it goes."""
        folder = Path(self.build_lib) / "srbook" / "notebooks"
        return {str(folder / path.name): str(path) for path in sorted(Path("notebooks").glob("*.ipynb"))}

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # which reads them where they lie
            for target, source in self._notebooks().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *self._notebooks().values()]  # what a source distribution must hold

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._notebooks()]

    def get_output_mapping(self) -> dict[str, str]:
        return {**super().get_output_mapping(), **self._notebooks()}


setup(cmdclass={"build_py": BuildWithNotebooks})
