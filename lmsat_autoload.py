"""Let plain ``lm_eval`` find the lmsat model and tasks.

lm-eval 0.4.13 discovers neither models nor tasks of other packages. A ``.pth`` file imports this module at
interpreter start; it puts one finder on ``sys.meta_path`` and imports nothing else. When, and only when,
``lm_eval.models`` or ``lm_eval.tasks.manager`` is imported, the finder adds one lazy registry entry, or one
folder to the task search path. ``LMSAT_AUTOLOAD=0`` switches it off; ``lmsat eval`` works without it.
"""

import os
import sys


def _register_model(models):
    """Add the lazy entry ``lmsat``, unless lm-eval has found it by entry point already."""
    from lm_eval.api.registry import model_registry

    target = "lmsat_plugin.harness.model:SaturationLM"
    models.MODEL_MAPPING.setdefault("lmsat", target)
    if "lmsat" not in model_registry:
        model_registry.register("lmsat", target=target)


def task_folders():
    """Return lmsat's own task folder and those of the installed plugins that import.

    A plugin's is the folder ``tasks`` beside the ``__init__.py`` of its top package. Files of probes that
    ``LMSAT_PROBES`` names have one that is made for them.
    """
    from importlib.metadata import entry_points
    from pathlib import Path

    here = Path(__file__).resolve().parent
    packaged = here / "lmsat_plugin" / "tasks"
    folders = [packaged if packaged.is_dir() else here / "tasks"]
    for entry in entry_points(group="lmsat") if os.environ.get("LMSAT_PLUGINS") != "0" else ():
        # Only where there are plugins, which import lmsat_plugin themselves.
        from lmsat_plugin.plugin_code import contained, named_if_slow

        try:
            with contained(), named_if_slow(entry.name, f"importing {entry.value}"):
                entry.load()
        except Exception:
            continue  # `lmsat_plugin.plugins` names it and says why
        package = sys.modules[entry.module.partition(".")[0]]
        folders += [Path(location) / "tasks" for location in getattr(package, "__path__", ())]
    if os.environ.get("LMSAT_PROBES"):
        from lmsat_plugin.probe_files import task_folder

        if folder := task_folder():
            folders.append(folder)
    return [folder for folder in folders if folder.is_dir()]


def _extend_task_path(manager):
    """Search our task folders after lm-eval's own tasks and before the user's ``--include_path``."""
    from pathlib import Path

    build = manager.TaskIndex.build
    defaults = Path(manager.__file__).parent

    def build_with_lmsat(paths, **options):
        paths = list(paths)
        if paths and Path(paths[0]) == defaults:
            paths[1:1] = task_folders()
        return build(paths, **options)

    manager.TaskIndex.build = staticmethod(build_with_lmsat)


_AFTER_IMPORT = {"lm_eval.models": _register_model, "lm_eval.tasks.manager": _extend_task_path}


def _apply(name, module):
    """Run the patch of one module, once; a layout of lm-eval we do not know is left as it is."""
    patch = _AFTER_IMPORT.pop(name, None)
    if patch is not None:
        try:
            patch(module)
        except (ImportError, AttributeError) as error:
            print(f"lmsat: this lm_eval is not supported ({name}: {error})", file=sys.stderr)


class _Finder:
    """A meta-path finder that finds nothing itself: it lets the others find, and acts after the import."""

    def find_spec(self, name, path=None, target=None):
        """Wrap the loader of the two modules of lm-eval that we extend."""
        if name not in _AFTER_IMPORT:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module = self._then_apply(name, spec.loader.exec_module)
                return spec
        return None

    def _then_apply(self, name, execute):
        def exec_module(module):
            execute(module)
            _apply(name, module)

        return exec_module


def install():
    """Switch the hook on, also for modules of lm-eval that are imported already."""
    for name in list(_AFTER_IMPORT):
        if name in sys.modules:
            _apply(name, sys.modules[name])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


if os.environ.get("LMSAT_AUTOLOAD") != "0":
    install()
