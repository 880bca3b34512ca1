"""Which network of a run is evaluated and exported, as its config says: the backbone, alone or with what reads it."""

from collections.abc import Mapping
from typing import Any

IN_CONTEXT = "ssl_lightning.models.context.InContext"


def judged_node(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config node that builds it. With `method.readout: context` the method's context network belongs to it."""
    backbone, method = dict(config["backbone"]), config.get("method")
    method = method if isinstance(method, Mapping) else {}
    context = method.get("context")
    inside = method.get("readout") == "context" and isinstance(context, Mapping)
    if not inside or backbone.get("_target_") == IN_CONTEXT:
        return backbone
    return {"_target_": IN_CONTEXT, "encoder": backbone, "context": context}
