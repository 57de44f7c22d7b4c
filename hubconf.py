"""torch.hub entry points, one per architecture: `torch.hub.load(repository, "resnet18", pretrained=True)`."""

import c2l_models as _c2l_models

dependencies = ["torch", "torchvision", "timm", "huggingface_hub", "safetensors", "numpy", "PIL"]

globals().update({name: getattr(_c2l_models, name) for name in _c2l_models.list_models()})
