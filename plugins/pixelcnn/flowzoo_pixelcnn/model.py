"""PixelCNN (van den Oord et al., 2016; Salimans et al., 2017) as a flow."""

from __future__ import annotations

from flowzoo.bijectors import Chain, Flatten
from flowzoo.densities import StandardUniform
from flowzoo.flow import Flow
from flowzoo_pixelcnn.bijectors import GreyLevelCDF
from flowzoo_pixelcnn.config import PixelCNNConfig
from flowzoo_pixelcnn.levels import parameters_per_pixel
from flowzoo_pixelcnn.networks import PixelCNN


def build(config: PixelCNNConfig) -> Flow:
    """Builds an untrained flow; it begins with broad distributions of grey levels."""
    channels, count = config.image_shape[0], 2**config.n_bits
    logistics = config.conditional == "logistics"
    parameters = parameters_per_pixel(channels, config.components) if logistics else count
    net = PixelCNN(channels, config.features, config.dilations, parameters, config.dropout)
    bijector = GreyLevelCDF(net, config.image_shape, count, config.conditional, config.floor)
    return Flow(
        image_shape=config.image_shape,
        n_bits=config.n_bits,
        bijector=Chain(bijector, Flatten(config.image_shape)),
        base=StandardUniform(),
    )
