"""Every network with every pooler takes training steps on a photograph at 800 pixels."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from build import build_data, build_model
from data.loader import eval_loader
from running.runtime import start_runtime

CONFIGS = str(Path(__file__).resolve().parent.parent / "configs")
STEPS = 5


@pytest.mark.slow
@pytest.mark.parametrize("pooler", ["pool", "warp", "align"])
@pytest.mark.parametrize("stride", [16, 32])
@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_losses_are_finite_and_fall(shared: Path, backbone: str, stride: int, pooler: str) -> None:
    overrides = [
        f"backbone={backbone}",
        "backbone.weights=null",
        f"stride={stride}",
        f"pooler={pooler}",
        "data=coco",
        f"data.root={shared / 'coco-mini'}",
        "data.select={count: 1, min_objects: 3, max_objects: 8, min_area: 1024}",
        "data.val_on_train=true",
    ]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    torch.manual_seed(0)
    data = build_data(cfg)
    model = build_model(cfg, len(data.train.categories)).train()
    batch = next(iter(eval_loader(data.train, data.eval_transform)))
    assert min(batch.images[0].shape[1:]) == 800
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    runtime = start_runtime(device="cpu", precision="auto")
    totals = []
    for _ in range(STEPS):
        with runtime.autocast():
            losses = model(batch.images, batch.targets)
        assert set(losses) == {"loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_box", "loss_mask"}
        assert all(torch.isfinite(value) for value in losses.values()), losses
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    print(f"{backbone} stride {stride} {pooler}: {' '.join(f'{t:.3f}' for t in totals)}")
    assert totals[-1] < totals[0]
