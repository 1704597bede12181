"""Checkpoints of deepsphere-pytorch: its own output for one layer, and a plain numpy U-Net for a whole state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from sphereml.errors import UserError
from sphereml.models.deepsphere import (
    DeepsphereSky,
    DeepsphereUNet,
    chebyshev_kernel,
    load_deepsphere_state_dict,
    sparse_operator,
)
from sphereml.models.layers import Convolution
from sphereml.sky.kdtree import kdtree_rescaled_laplacian

REFERENCE = Path(__file__).parents[1] / "../shared/reference/deepsphere_chebconv_nside8_k20_K5.npz"
NSIDE = 32
TAPS = 3
# deepsphere's names and channels, written out: the loader makes its own list.
LAYERS = {
    "encoder.enc_l5.spherical_cheb_bn_1": (16, 32),
    "encoder.enc_l5.spherical_cheb_bn_2": (32, 64),
    "encoder.enc_l4.spherical_cheb_bn": (64, 128),
    "encoder.enc_l3.spherical_cheb_bn": (128, 256),
    "encoder.enc_l2.spherical_cheb_bn": (256, 512),
    "encoder.enc_l1.spherical_cheb_bn": (512, 512),
    "encoder.enc_l0": (512, 512),
    "decoder.dec_l1.spherical_cheb_bn_pool.spherical_cheb_bn": (512, 512),
    "decoder.dec_l1.spherical_cheb_bn": (1024, 512),
    "decoder.dec_l2.spherical_cheb_bn_pool.spherical_cheb_bn": (512, 256),
    "decoder.dec_l2.spherical_cheb_bn": (768, 256),
    "decoder.dec_l3.spherical_cheb_bn_pool.spherical_cheb_bn": (256, 128),
    "decoder.dec_l3.spherical_cheb_bn": (384, 128),
    "decoder.dec_l4.spherical_cheb_bn_pool.spherical_cheb_bn": (128, 64),
    "decoder.dec_l4.spherical_cheb_bn": (192, 64),
    "decoder.dec_l5.spherical_cheb_bn_pool.spherical_cheb_bn": (64, 32),
    "decoder.dec_l5": (32, 3),
}
PLAIN = ("encoder.enc_l0", "decoder.dec_l5")


@pytest.fixture(scope="module")
def laplacians() -> list[torch.Tensor]:
    """Coarsest first, as sparse float32 tensors; not quite those that the loader builds by itself."""
    tensors = []
    for nside in (1, 2, 4, 8, 16, 32):
        matrix = (0.97 * kdtree_rescaled_laplacian(nside).matrix()).tocoo()
        values = torch.from_numpy(matrix.data).float()
        tensors.append(
            torch.sparse_coo_tensor(
                np.stack([matrix.row, matrix.col]), values, matrix.shape, check_invariants=True
            ).coalesce()
        )
    return tensors


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    arrays = {}
    for name, (wide, narrow) in LAYERS.items():
        scale = (2 / (TAPS * wide)) ** 0.5
        weight = scale * torch.randn(TAPS, wide, narrow, generator=generator)
        arrays[f"{name}.spherical_cheb.chebconv.weight"] = weight
        arrays[f"{name}.spherical_cheb.chebconv.bias"] = 0.1 * torch.randn(narrow, generator=generator)
        if name not in PLAIN:
            for key, offset in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
                arrays[f"{name}.batchnorm.{key}"] = offset + 0.2 * torch.rand(narrow, generator=generator)
            arrays[f"{name}.batchnorm.num_batches_tracked"] = torch.tensor(7)
    return arrays


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    return torch.randn(1, 12 * NSIDE**2, 16, generator=torch.Generator().manual_seed(2))


class PlainUNet:
    """SphericalUNet in numpy with scipy's sparse products: one map ``(npix, channel)``, float64."""

    def __init__(self, state: dict[str, torch.Tensor], laplacians: list[torch.Tensor]) -> None:
        self.state = {key: value.double().numpy() for key, value in state.items()}
        self.laplacians = [
            scipy.sparse.csr_matrix((one.values().double().numpy(), tuple(one.indices().numpy())), shape=one.shape)
            for one in laplacians
        ]

    def step(self, x: np.ndarray, name: str, level: int) -> np.ndarray:
        weight = self.state[f"{name}.spherical_cheb.chebconv.weight"]
        polynomials = [x, self.laplacians[level] @ x]
        while len(polynomials) < len(weight):
            polynomials.append(2 * (self.laplacians[level] @ polynomials[-1]) - polynomials[-2])
        features = np.stack(polynomials, axis=2).reshape(len(x), -1)
        x = features @ weight.reshape(features.shape[1], -1) + self.state[f"{name}.spherical_cheb.chebconv.bias"]
        if name in PLAIN:
            return x
        scale, shift, mean, variance = (
            self.state[f"{name}.batchnorm.{key}"] for key in ("weight", "bias", "running_mean", "running_var")
        )
        return np.maximum((x - mean) / np.sqrt(variance + 1e-5) * scale + shift, 0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        for name in ("spherical_cheb_bn_1", "spherical_cheb_bn_2"):
            x = self.step(x, f"encoder.enc_l5.{name}", 5)
        encoded = []
        for level in (4, 3, 2, 1):
            x = self.step(x.reshape(-1, 4, x.shape[1]).mean(axis=1), f"encoder.enc_l{level}.spherical_cheb_bn", level)
            encoded.append(x)
        x = self.step(x.reshape(-1, 4, x.shape[1]).mean(axis=1), "encoder.enc_l0", 0)
        for level in (1, 2, 3, 4, 5):
            decoder = f"decoder.dec_l{level}"
            x = self.step(np.repeat(x, 4, axis=0), f"{decoder}.spherical_cheb_bn_pool.spherical_cheb_bn", level)
            if level < 5:
                x = self.step(np.concatenate([x, encoded.pop()], axis=1), f"{decoder}.spherical_cheb_bn", level)
        scores = np.exp(self.step(x, "decoder.dec_l5", 5))
        return scores / scores.sum(axis=1, keepdims=True)


def probabilities(network: DeepsphereUNet, maps: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return network(maps)[0].numpy()


def test_layer_reproduces_deepspheres_output():
    if not REFERENCE.exists():
        pytest.skip(f"no reference file {REFERENCE}")
    arrays = {key: torch.from_numpy(value) for key, value in np.load(REFERENCE).items()}
    places = torch.stack([arrays["scaled_row"], arrays["scaled_col"]])
    operator = sparse_operator(torch.sparse_coo_tensor(places, arrays["scaled_val"], (768, 768), check_invariants=True))
    sky = DeepsphereSky(8, operators=(operator,))
    layer = Convolution(sky, 3, 4, 5)
    layer.load_state_dict({"kernel": chebyshev_kernel(arrays["weight"]), "bias": arrays["bias"]})
    with torch.inference_mode():
        output = layer(arrays["x"], sky)
    assert (output - arrays["y"]).abs().max() < 1e-5
    assert (layer.kernel - arrays["weight"]).abs().max() > 0.1  # the layout matters


def test_network_of_a_state_equals_a_plain_one(state, laplacians, maps):
    expected = PlainUNet(state, laplacians)(maps[0].double().numpy())
    assert expected.std() > 0.05
    network = load_deepsphere_state_dict(state, NSIDE, laplacians)
    np.testing.assert_allclose(probabilities(network, maps), expected, atol=1e-5)


def test_laplacians_in_the_state_and_prefixes_of_data_parallel_are_understood(state, laplacians, maps):
    expected = probabilities(load_deepsphere_state_dict(state, NSIDE, laplacians), maps)
    full = {f"module.{key}": value for key, value in state.items()}
    for name in LAYERS:
        full[f"module.{name}.spherical_cheb.laplacian"] = laplacians[int(name[13])]
    np.testing.assert_array_equal(probabilities(load_deepsphere_state_dict(full, NSIDE), maps), expected)


def test_graphs_are_built_where_the_state_has_none(state, laplacians, maps):
    rescaled = [one / 0.97 for one in laplacians]
    expected = PlainUNet(state, [one.coalesce() for one in rescaled])(maps[0].double().numpy())
    np.testing.assert_allclose(probabilities(load_deepsphere_state_dict(state, NSIDE), maps), expected, atol=1e-5)


def test_network_gives_scores_and_gradients_while_training(state, laplacians, maps):
    network = load_deepsphere_state_dict(state, NSIDE, laplacians).train()
    scores = network(maps)
    assert (scores.sum(dim=-1) - 1).abs().max() > 0.1
    scores.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def without(state: dict[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name != key}


BIAS = "decoder.dec_l3.spherical_cheb_bn.spherical_cheb.chebconv.bias"


@pytest.mark.parametrize(
    ("change", "nside", "message"),
    [
        (lambda state: without(state, BIAS), 32, f"no {BIAS}"),
        (lambda state: {}, 32, "no encoder.enc_l5"),
        (lambda state: {**state, BIAS: torch.zeros(5)}, 32, r"has shape \(5,\), not \(128,\)"),
        (lambda state: {**state, "lstm_l0.weight_ih_l0": torch.zeros(5)}, 32, "unknown key lstm_l0"),
        (lambda state: state, 16, "cannot run at Nside 16"),
        (lambda state: state, 33, "not a power of two"),
        (lambda state: {**state, "encoder.enc_l5.laplacian": torch.zeros(5, 5)}, 32, "no Laplacian of level 0"),
    ],
)
def test_bad_states_are_refused(state, change, nside, message):
    with pytest.raises(UserError, match=message):
        load_deepsphere_state_dict(change(state), nside)


def test_laplacians_of_another_nside_are_refused(state, laplacians):
    with pytest.raises(UserError, match="pixels, not"):
        load_deepsphere_state_dict(state, 64, laplacians)
