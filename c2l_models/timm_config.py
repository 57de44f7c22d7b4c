"""timm's record of pretrained weights, for tensors that are in memory. Imports timm."""

from dataclasses import fields
from typing import Any

from timm.models import PretrainedCfg
from timm.models._pretrained import filter_pretrained_cfg


class SharedConfig(PretrainedCfg):
    """timm's, but `to_dict` shares the state dict where timm copies every tensor."""

    def to_dict(self, remove_source: bool = False, remove_null: bool = True) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return filter_pretrained_cfg(values, remove_source=remove_source, remove_null=remove_null)
