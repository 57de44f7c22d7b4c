"""timm's record of pretrained weights, for tensors that are in memory. Imports timm."""

from dataclasses import fields
from typing import Any

from timm.models import PretrainedCfg


class SharedConfig(PretrainedCfg):
    """timm's, but `to_dict` shares the state dict where timm copies every tensor."""

    def to_dict(self, remove_source: bool = False, remove_null: bool = True) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        state_dict = values.pop("state_dict")
        return PretrainedCfg(**values).to_dict(remove_source, remove_null) | {"state_dict": state_dict}
