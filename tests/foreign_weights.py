"""Networks of this project, saved in the formats of other programs."""

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.weight_names import detectron_backbone_name, detectron_name


def randomised(module: nn.Module) -> nn.Module:
    """Every tensor, statistics of norms too, made unlike any other."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not name.startswith("normalize."):
                noise = torch.rand(tensor.shape, generator=generator)
                scale = (
                    0.5 + noise if tensor.ndim == 1 else (noise - 0.5) / tensor[0].numel() ** 0.5
                )
                tensor.copy_(scale)
    return module


def msra_file(path: Path, stages: dict[str, Tensor]) -> Path:
    """MSRA's ResNets: flat, with the norms' four parts and the classifier."""
    long = {"bn_s": "bn_gamma", "bn_b": "bn_beta", "bn_rm": "bn_running_mean"}
    long["bn_riv"] = "bn_running_var"
    blobs = {"fc1000_w": np.zeros((3, 4), np.float32), "fc1000_b": np.zeros(3, np.float32)}
    for ours, tensor in stages.items():
        name = detectron_backbone_name(ours)
        for short, spelled in long.items():
            name = spelled.join(name.rsplit(short, 1)) if name.endswith(short) else name
        blobs[name] = tensor.numpy()
    path.write_bytes(pickle.dumps(blobs, protocol=2))
    return path


def detectron_file(path: Path, state: dict[str, Tensor]) -> Path:
    """Detectron's detectors: background first, anchors ratio by ratio, norms as scale and shift."""
    blobs = {"lr": np.float32(0.1), "conv1_b": np.zeros(8, np.float32)}
    for ours, tensor in state.items():
        if ours.startswith("normalize.") or "running" in ours:
            continue
        blob, name = tensor.numpy(), detectron_name(ours)
        if name.startswith("cls_score"):
            blob = np.concatenate((blob[-1:], blob[:-1]))
        elif name.startswith("bbox_pred"):
            blob = np.concatenate((np.full_like(blob[:4], 9), blob))
        elif name.startswith("mask_fcn_logits"):
            blob = np.concatenate((np.full_like(blob[:1], 9), blob))
        elif name.startswith(("rpn_cls_logits", "rpn_bbox_pred")):
            numbers = 1 if "logits" in name else 4
            by_size = blob.reshape(-1, 3, numbers, *blob.shape[1:])
            blob = by_size.swapaxes(0, 1).reshape(blob.shape)
        blobs[name] = blobs[f"{name}_momentum"] = blob
    path.write_bytes(pickle.dumps({"blobs": blobs, "cfg": "MODEL: {}"}, protocol=2))
    return path
