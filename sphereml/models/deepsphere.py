"""deepsphere-pytorch's layers and U-Net, so that its checkpoints run here (Defferrard et al. 2020, arXiv:2012.15000).

Conventions: tensors ``(batch, pixel, channel)``, NEST.  Its convolution keeps a parameter of shape ``(K, Fin, Fout)``
but reads its memory as ``(Fin, K, Fout)``; :func:`chebyshev_kernel` undoes that.  Its graphs have 20 neighbours,
pooling takes the mean of four children and unpooling repeats.  Its saved states hold no Laplacian, and the one it
trains with is scaled by an estimate that starts at random and is good to 0.5 %: outputs agree to rounding only with the
Laplacians of the very run (the list ``laps`` of its model), otherwise to what that 0.5 % makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import scipy.sparse
import torch
from torch import nn

from sphereml.domains import HealpixSky
from sphereml.domains.channels import Channels
from sphereml.domains.chebyshev import ChebyshevLayout
from sphereml.domains.convolution import Layout
from sphereml.domains.healpix import LAYOUTS
from sphereml.domains.protocol import Stencil
from sphereml.errors import UserError
from sphereml.models.layers import ChannelNorm, Convolution
from sphereml.sky.graphs import Kind, NeighbourOperator
from sphereml.sky.grid import HealpixGrid
from sphereml.sky.kdtree import kdtree_rescaled_laplacian

_LEVELS = 6
# deepsphere's names of the first convolution and the last.
_ENDS = ("encoder.enc_l5.spherical_cheb_bn_1", "decoder.dec_l5")
_NORM_STATE = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class DeepsphereSky(HealpixSky):
    """The whole sphere with rescaled Laplacians given for this Nside and the coarser ones, coarsest first."""

    operators: tuple[NeighbourOperator, ...] = ()

    @classmethod
    def built(cls, nside: int, kind: Kind = "combinatorial") -> DeepsphereSky:
        """With the graphs that deepsphere builds for its U-Net."""
        sides = [nside >> step for step in reversed(range(_LEVELS))]
        return cls(nside, operators=tuple(kdtree_rescaled_laplacian(side, "nearest20", kind) for side in sides))

    def coarser(self) -> DeepsphereSky:
        return DeepsphereSky(self.nside // 2, operators=self.operators[:-1])

    def layout(self, stencil: Stencil, x: torch.Tensor) -> Layout:
        """Of the given operator, whatever the stencil."""
        dtype, operator = torch.promote_types(x.dtype, torch.float32), self.operators[-1]
        return LAYOUTS.get((operator, dtype, x.device), lambda: ChebyshevLayout(operator, dtype, x.device))

    def pool(self, x: torch.Tensor, channels: Channels | None = None) -> torch.Tensor:
        return x.view(x.shape[0], -1, 4, x.shape[-1]).mean(dim=2)


class _Step(nn.Module):
    """Convolution, batch normalization, ReLU; the convolution alone with ``norm=False``."""

    def __init__(self, domain: HealpixSky, channels: tuple[int, int], kernel: int, norm: bool = True) -> None:
        super().__init__()
        self.convolution = Convolution(domain, *channels, kernel)
        self.norm = ChannelNorm(channels[1], "batch") if norm else None

    def forward(self, x: torch.Tensor, domain: HealpixSky) -> torch.Tensor:
        x = self.convolution(x, domain)
        return x if self.norm is None else torch.relu(self.norm(x))


def _steps(channels: tuple[int, int, int]) -> dict[str, tuple[str, int, int]]:
    """Our name of each convolution, then deepsphere's, its channels in and out; levels count from the coarsest, 0."""
    encoder, decoder = "encoder.enc_l", "decoder.dec_l"
    steps = {
        "first": (f"{encoder}5.spherical_cheb_bn_1", channels[0], channels[1]),
        "second": (f"{encoder}5.spherical_cheb_bn_2", channels[1], 64),
    }
    for level, fine, coarse in ((4, 64, 128), (3, 128, 256), (2, 256, 512), (1, 512, 512)):
        steps[f"down{level}"] = (f"{encoder}{level}.spherical_cheb_bn", fine, coarse)
    steps["deepest"] = (f"{encoder}0", 512, 512)
    for level, coarse, fine in ((1, 512, 512), (2, 512, 256), (3, 256, 128), (4, 128, 64), (5, 64, 32)):
        steps[f"up{level}"] = (f"{decoder}{level}.spherical_cheb_bn_pool.spherical_cheb_bn", coarse, fine)
        if level < 5:
            steps[f"merge{level}"] = (f"{decoder}{level}.spherical_cheb_bn", coarse + fine, fine)
    steps["output"] = (f"{decoder}5", 32, channels[2])
    return steps


class DeepsphereUNet(nn.Module):
    """SphericalUNet with HEALPix average pooling: ``(B, npix, channels[0])`` to ``(B, npix, channels[2])``.

    Scores while training, probabilities (softmax over channels) in ``eval()`` mode, as there.

    Args:
        domain: at the Nside of the maps, 32 or more; the network keeps it.
        channels: of the input, after the first convolution, and of the output.
        kernel: number of Chebyshev polynomials of each convolution.
    """

    def __init__(self, domain: DeepsphereSky, channels: tuple[int, int, int] = (16, 32, 3), kernel: int = 3) -> None:
        super().__init__()
        self.domain = domain
        self.steps = nn.ModuleDict(
            {
                name: _Step(domain, (wide, narrow), kernel, norm=name not in ("deepest", "output"))
                for name, (_, wide, narrow) in _steps(channels).items()
            }
        )

    def forward(self, x: torch.Tensor, domain: DeepsphereSky | None = None) -> torch.Tensor:
        levels = [domain or self.domain]
        while len(levels) < _LEVELS:
            levels.insert(0, levels[0].coarser())
        x = self.steps["second"](self.steps["first"](x, levels[5]), levels[5])
        skipped = []
        for level in (4, 3, 2, 1):
            x = self.steps[f"down{level}"](levels[level + 1].pool(x), levels[level])
            skipped.append(x)
        x = self.steps["deepest"](levels[1].pool(x), levels[0])
        for level in (1, 2, 3, 4):
            x = self.steps[f"up{level}"](levels[level].spread(x), levels[level])
            x = self.steps[f"merge{level}"](torch.cat([x, skipped.pop()], dim=-1), levels[level])
        x = self.steps["up5"](levels[5].spread(x), levels[5])
        scores: torch.Tensor = self.steps["output"](x, levels[5])
        return scores if self.training else scores.softmax(dim=-1)


def chebyshev_kernel(weight: torch.Tensor) -> torch.Tensor:
    """Our kernel ``(K, Fin, Fout)`` of deepsphere's parameter of the same shape, whose memory it reads otherwise."""
    taps, channels_in, channels_out = weight.shape
    return weight.reshape(channels_in, taps, channels_out).transpose(0, 1).contiguous()


def sparse_operator(laplacian: torch.Tensor) -> NeighbourOperator:
    """The operator of a symmetric sparse tensor ``(npix, npix)``, as deepsphere's layers hold it."""
    entries = laplacian.detach().cpu().to_sparse_coo().coalesce()
    values = entries.values().double().numpy()
    return NeighbourOperator.from_matrix(
        scipy.sparse.coo_matrix((values, tuple(entries.indices().numpy())), shape=tuple(entries.shape))
    )


def load_deepsphere_state_dict(
    state: Mapping[str, torch.Tensor],
    nside: int,
    laplacians: Sequence[torch.Tensor] | None = None,
    kind: Kind = "combinatorial",
) -> DeepsphereUNet:
    """The U-Net of a saved state of deepsphere-pytorch's SphericalUNet, in ``eval()`` mode.

    Args:
        state: ``torch.load("unet_state.pt")``; its buffers ``laplacian`` are used if it has them.
        nside: of the maps it was trained on, 32 or more.
        laplacians: rescaled Laplacians of the six Nsides of the run, sparse, coarsest first (the model's ``laps``).
        kind: Laplacian to build where none is given.
    Raises:
        UserError: a key is missing or unknown, an array has the wrong shape, or ``nside`` is too low for six levels.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    stored = {key: state.pop(key) for key in list(state) if key.endswith("laplacian")}
    if laplacians is None and stored:
        laplacians = [_of_level(stored, level) for level in range(_LEVELS)]
    first, last = (_shape(state, f"{name}.spherical_cheb.chebconv.weight") for name in _ENDS)
    channels = (first[1], first[2], last[2])
    network = DeepsphereUNet(_sky(nside, laplacians, kind), channels, first[0])
    network.load_state_dict(_converted(state, channels, first[0]))
    return network.eval()


def _sky(nside: int, laplacians: Sequence[torch.Tensor] | None, kind: Kind) -> DeepsphereSky:
    if HealpixGrid(nside).nside < 2 ** (_LEVELS - 1):
        raise UserError(f"a network of {_LEVELS} levels cannot run at Nside {nside}", "give the Nside of its maps")
    if laplacians is None:
        return DeepsphereSky.built(nside, kind)
    sizes = [12 * (nside >> step) ** 2 for step in reversed(range(_LEVELS))]
    if [tuple(one.shape) for one in laplacians] != [(size, size) for size in sizes]:
        found = [one.shape[0] for one in laplacians]
        raise UserError(f"the Laplacians have {found} pixels, not {sizes}", "give the right nside, coarsest first")
    return DeepsphereSky(nside, operators=tuple(sparse_operator(one) for one in laplacians))


def _converted(state: dict[str, torch.Tensor], channels: tuple[int, int, int], taps: int) -> dict[str, torch.Tensor]:
    """The state under our names; every array is checked, and none may be left over."""
    state, own = dict(state), {}

    def move(key: str, name: str, shape: tuple[int, ...]) -> None:
        if _shape(state, key) != shape:
            raise UserError(f"{key} has shape {_shape(state, key)}, not {shape}", "this is no state of SphericalUNet")
        own[name] = state.pop(key)

    for name, (theirs, wide, narrow) in _steps(channels).items():
        layer = f"steps.{name}.convolution"
        move(f"{theirs}.spherical_cheb.chebconv.weight", f"{layer}.kernel", (taps, wide, narrow))
        own[f"{layer}.kernel"] = chebyshev_kernel(own[f"{layer}.kernel"])
        move(f"{theirs}.spherical_cheb.chebconv.bias", f"{layer}.bias", (narrow,))
        if name not in ("deepest", "output"):
            for key in _NORM_STATE:
                move(f"{theirs}.batchnorm.{key}", f"steps.{name}.norm.norm.{key}", (narrow,))
            count = state.pop(f"{theirs}.batchnorm.num_batches_tracked", torch.tensor(0))
            own[f"steps.{name}.norm.norm.num_batches_tracked"] = count
    if state:
        raise UserError(f"the state has the unknown key {min(state)}", "only SphericalUNet on HEALPix can be loaded")
    return own


def _shape(state: Mapping[str, torch.Tensor], key: str) -> tuple[int, ...]:
    if key not in state:
        raise UserError(f"the state has no {key}", "give the state_dict of deepsphere-pytorch's SphericalUNet")
    return tuple(state[key].shape)


def _of_level(stored: Mapping[str, torch.Tensor], level: int) -> torch.Tensor:
    """The Laplacian that all layers of a level share."""
    for key, laplacian in stored.items():
        if f"_l{level}." in key:
            return laplacian
    raise UserError(f"the state has no Laplacian of level {level}", "give laplacians, or a state without any")
