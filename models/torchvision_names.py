"""torchvision's names for the layers of its ResNets and VGG16.

Ours for a backbone: `stem.conv.weight`, `res3.1.norm2.bias`, `features.28.weight`, `fc6.weight`.
"""

from torch import Tensor

STAGES = {"res2": "layer1", "res3": "layer2", "res4": "layer3", "res5": "layer4"}
STEM = {"conv": "conv1", "norm": "bn1"}
SHORTCUT = {"conv": "downsample.0", "norm": "downsample.1"}
VGG_TOP = {"fc6": "classifier.0", "fc7": "classifier.3"}


def torchvision_name(ours: str) -> str:
    """`res3.1.norm2.weight` -> `layer2.1.bn2.weight`, `fc6.bias` -> `classifier.0.bias`."""
    stage, rest = ours.split(".", 1)
    if stage == "features":
        return ours
    if stage in VGG_TOP:
        return f"{VGG_TOP[stage]}.{rest}"
    if stage == "stem":
        layer, leaf = rest.split(".")
        return f"{STEM[layer]}.{leaf}"
    block, layer, leaf = rest.split(".", 2)
    if layer == "shortcut":
        layer, leaf = leaf.split(".")
        layer = SHORTCUT[layer]
    return f"{STAGES[stage]}.{block}.{layer.replace('norm', 'bn')}.{leaf}"


def with_epsilon(tensors: dict[str, Tensor], epsilon: float) -> dict[str, Tensor]:
    """Variances less `epsilon`, for weights made where none was added to them.

    torchvision's first detection models normalised without one; ours adds it back.
    """
    return {
        name: tensor - epsilon if name.endswith("running_var") else tensor
        for name, tensor in tensors.items()
    }
