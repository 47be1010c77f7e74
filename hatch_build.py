"""Keep the tasks and configurations out of an editable install: they are found in the checkout."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class EditableHook(BuildHookInterface):
    """Force into an editable wheel the start-up hook alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds a wheel."""
        if version == "editable":
            build_data["force_include_editable"] = {"lmsat_autoload.pth": "lmsat_autoload.pth"}
