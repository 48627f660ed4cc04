"""Weights of improved-diffusion and guided-diffusion: the same numbers in our network, and a training from them."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from small_runs import write_pictures
from torch import Tensor

import jdm
from jdm.errors import CheckpointError, JdmError, TrainingError
from jdm.train import loop
from jdm.train.imported_weights import import_improved_diffusion

REFERENCE = json.loads((Path(__file__).parent / "reference" / "improved_diffusion.json").read_text(encoding="utf-8"))
HEADS = REFERENCE["settings"]["num_heads"]
X = torch.sin(0.37 * torch.arange(2 * 3 * 8 * 12, dtype=torch.float64)).reshape(2, 3, 8, 12).float()
STEPS = torch.tensor([3.0, 741.0])


def formula_weights(channels: int = 3) -> dict[str, Tensor]:
    """The state dict that the reference file describes in words; of so many channels, with learned variance."""
    state = {}
    for n, (name, shape) in enumerate(sorted(REFERENCE["shapes"].items())):
        shape = [shape[0], channels, 3, 3] if name == "input_blocks.0.0.weight" else list(shape)
        shape[0] = 2 * channels if name.startswith("out.2.") else shape[0]
        i = torch.arange(math.prod(shape), dtype=torch.float64)
        wave = torch.sin(0.01 * i * i + n)
        values = 1 + 0.1 * wave if len(shape) == 1 else 1.5 * wave / (len(i) / shape[0]) ** 0.5
        state[name] = values.reshape(shape).float()
    return state


def by_hand(state: dict[str, Tensor], x: Tensor, steps: Tensor, heads: int, new_order: bool) -> Tensor:
    """UNetModel of guided-diffusion (unet.py) with scale-shift norm, written out over its state dict."""

    def parameters(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def norm(name: str, h: Tensor) -> Tensor:
        return F.group_norm(h, 32, *parameters(name))

    def residual(name: str, h: Tensor) -> Tensor:
        inner = F.conv2d(F.silu(norm(f"{name}.in_layers.0", h)), *parameters(f"{name}.in_layers.2"), padding=1)
        scale, shift = F.linear(F.silu(embedding), *parameters(f"{name}.emb_layers.1"))[..., None, None].chunk(2, 1)
        inner = norm(f"{name}.out_layers.0", inner) * (1 + scale) + shift
        inner = F.conv2d(F.silu(inner), *parameters(f"{name}.out_layers.3"), padding=1)
        skip = f"{name}.skip_connection"
        return (F.conv2d(h, *parameters(skip)) if f"{skip}.weight" in state else h) + inner

    def attention(name: str, h: Tensor) -> Tensor:
        batch, width, length = len(h), h.shape[1] // heads, h[0, 0].numel()
        qkv = F.conv1d(norm(f"{name}.norm", h.flatten(2)), *parameters(f"{name}.qkv"))
        if new_order:  # QKVAttention: first all queries, then all keys, then all values
            q, k, v = (part.reshape(batch * heads, width, length) for part in qkv.chunk(3, dim=1))
        else:  # QKVAttentionLegacy: those of each head together
            q, k, v = qkv.reshape(batch * heads, 3 * width, length).split(width, dim=1)
        weight = torch.einsum("bct,bcs->bts", q, k).div(math.sqrt(width)).softmax(-1)
        mixed = torch.einsum("bts,bcs->bct", weight, v).reshape(batch, -1, length)
        return h + F.conv1d(mixed, *parameters(f"{name}.proj_out")).reshape(h.shape)

    def stage(name: str, h: Tensor) -> Tensor:
        for part in (f"{name}.{number}" for number in range(3)):
            if f"{part}.in_layers.0.weight" in state:
                h = residual(part, h)
            elif f"{part}.qkv.weight" in state:
                h = attention(part, h)
            elif f"{part}.op.weight" in state:
                h = F.conv2d(h, *parameters(f"{part}.op"), stride=2, padding=1)
            elif f"{part}.conv.weight" in state:
                h = F.conv2d(F.interpolate(h, scale_factor=2, mode="nearest"), *parameters(f"{part}.conv"), padding=1)
        return h

    angles = steps[:, None] * torch.exp(-math.log(10000) * torch.arange(64) / 64)
    embedding = F.linear(torch.cat([angles.cos(), angles.sin()], 1), *parameters("time_embed.0"))
    embedding = F.linear(F.silu(embedding), *parameters("time_embed.2"))
    h = F.conv2d(x, *parameters("input_blocks.0.0"), padding=1)
    kept = [h]
    for number in range(1, 4):
        h = stage(f"input_blocks.{number}", h)
        kept.append(h)
    h = stage("middle_block", h)
    for number in range(4):
        h = stage(f"output_blocks.{number}", torch.cat([h, kept.pop()], dim=1))
    return F.conv2d(F.silu(norm("out.0", h)), *parameters("out.2"), padding=1)


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_imported_weights_compute_what_improved_diffusion_does(tmp_path, ending, order):
    path, state = tmp_path / f"model{ending}", formula_weights()
    torch.save(state, path) if ending == ".pt" else save_file(state, path)
    with torch.no_grad():
        y = import_improved_diffusion(path, HEADS, order).unet()(X, STEPS[:, None])
        expected = by_hand(state, X, STEPS, HEADS, order == "new")
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=2e-5)
    stored = torch.tensor(REFERENCE["values"])  # of the package itself, in legacy order
    assert torch.allclose(y.flatten()[REFERENCE["indices"]], stored, rtol=1e-5, atol=1e-5) == (order == "legacy")


def without(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(names)}


def renamed(state: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {name.replace(old, new): tensor for name, tensor in state.items()}


def test_weights_that_do_not_fit_are_refused_by_name_in_one_line(tmp_path):
    good = {name: torch.zeros(shape) for name, shape in REFERENCE["shapes"].items()}
    first, modulation = "input_blocks.0.0.weight", "input_blocks.1.0.emb_layers.1.weight"
    cases = {
        "class_cond": {**good, "label_emb.weight": torch.zeros(10, 512)},
        "resblock_updown": renamed(good, "output_blocks.1.2.conv", "output_blocks.1.2.in_layers.2"),
        "conv_resample": without(good, "input_blocks.2.", "output_blocks.1.2."),
        "3-D network": {**good, first: torch.zeros(128, 3, 3, 3, 3)},
        "1-D network": {**good, first: torch.zeros(128, 3, 3)},
        "out_conv": without(good, "out.2.bias"),
        "emb_layers": {**good, modulation: good[modulation][::2]},  # without scale-shift norm
        "64 base channels": {n: torch.zeros([s // 2 if s % 64 == 0 else s for s in t.shape]) for n, t in good.items()},
        "head.weight": {**good, "head.weight": torch.zeros(1)},
        "time_embed": {"conv.weight": torch.zeros(3)},
        "other than named tensors": {"state_dict": good},
    }
    for found, state in cases.items():
        torch.save(state, tmp_path / "model.pt")
        with pytest.raises(CheckpointError, match=rf"model\.pt.*{found}") as error:
            import_improved_diffusion(tmp_path / "model.pt", HEADS)
        assert "\n" not in str(error.value)


class _Payload:
    """What a malicious file would run on loading."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


def test_files_that_hold_no_tensors_are_refused_in_one_line_and_run_nothing(tmp_path):
    torch.save({"weight": _Payload(tmp_path / "ran")}, tmp_path / "code.pt")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.safetensors").write_bytes(b"no checkpoint")
    for name in ("code.pt", "empty.pt", "text.safetensors", "absent.safetensors", "absent.pt"):
        with pytest.raises(CheckpointError, match=name) as error:
            import_improved_diffusion(tmp_path / name, HEADS)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def request_of(nnunet_folders, tmp_path):
    """Makes requests that start from weights of grey images of one class."""
    folder = write_pictures(nnunet_folders["nnUNet_raw"]).folder
    torch.save(formula_weights(2), tmp_path / "grey.pt")
    torch.save(formula_weights(3), tmp_path / "other.pt")
    (folder / "classes.csv").write_text("case,class\n" + "".join(f"case_{k},{'ab'[k % 2]}\n" for k in range(5)))

    def request(init_from: str | None = "grey.pt", **changes) -> jdm.TrainRequest:
        usual = {"preset": "thesis", "init_heads": HEADS, "init_attention_order": "legacy"}
        changes = {**usual, **changes, "init_from": None if init_from is None else tmp_path / init_from}
        return jdm.TrainRequest("21", "all", **changes)

    return request


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"preset": "default"}, r"--init-from.*default.*--preset thesis"),
        ({"init_heads": None}, r"--init-heads .*grey\.pt.*num_heads"),
        ({"init_attention_order": None}, r"--init-attention-order .*use_new_attention_order"),
        ({"init_heads": None, "init_attention_order": None}, r"--init-heads and --init-attention-order"),
        ({"init_from": None}, r"--init-heads.*--init-from"),
        ({"init_from": "other.pt"}, r"other\.pt has 3 input and 6 output channels.*2 \(1.*, 1.*4"),
        ({"init_from": "absent.pt"}, r"absent\.pt"),
        ({"init_heads": 0}, r"--init-heads is 0.*1"),
        ({"init_heads": 3}, r"attention_heads is 3"),
        ({"classes": Path("classes.csv")}, r"--init-from.*--classes"),
        ({"settings": {"network": {"base_channels": 64}}}, r"grey\.pt.*network\.base_channels: 64, expected 128"),
    ],
)
def test_what_weights_cannot_start_is_refused(request_of, changes, found):
    with pytest.raises(JdmError, match=found) as error:
        jdm.plan(request_of(**changes))
    assert "\n" not in str(error.value)


def test_a_training_starts_from_imported_weights_however_early_it_is_killed(request_of, monkeypatch):
    def killed(*_: object) -> None:
        raise MemoryError

    settings = {"train": {"steps": 1, "batch_size": 2, "learning_rate": 1e-9}, "network": {"dropout": 0.2}}
    request = request_of(init_attention_order="new", settings=settings)
    with monkeypatch.context() as patch, pytest.raises(TrainingError):
        patch.setattr(loop, "loss_and_gradients", killed)
        jdm.train(request)
    checkpoint = jdm.train(jdm.TrainRequest("21", "all", resume=True))
    imported = import_improved_diffusion(request.init_from, HEADS, "new")
    assert checkpoint.config.network.dropout == 0.2 and checkpoint.config.network.base_channels == 128
    assert {name.removeprefix("network.") for name in checkpoint.weights} == {*imported.weights}
    for name, weight in imported.weights.items():
        torch.testing.assert_close(checkpoint.weights[f"network.{name}"], weight, atol=1e-6, rtol=0)
