"""torch.hub entry points: `torch.hub.load(repository, "resnet18", pretrained=True)`."""

dependencies = ["torch", "torchvision", "timm", "huggingface_hub", "safetensors", "numpy", "PIL"]

from c2l_models.models import densenet121, resnet18  # noqa: E402, F401
