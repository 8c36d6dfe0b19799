"""Colours: two perceptually uniform, colour-blind safe scales and a set of outline colours.

The scales are sampled from matplotlib's viridis and inferno (CC0; S. van der Walt and N. Smith, 2015). Inferno starts
at a quarter of its way: its black beginning cannot be seen on a CT, and what lies below the threshold is not drawn anyway.
The outline colours are those of Okabe and Ito (2008) without black, then hues a golden angle apart.
"""

import colorsys

import numpy as np

VIRIDIS = (
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c "
    "1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725"
)
INFERNO_FROM_A_QUARTER = (
    "57106e 6a176e 7d1e6d 902568 a32c61 b63458 c73e4c d74b3f e45a31 "
    "ef6c23 f68013 fb9606 fcac11 fac42a f5db4c f1f179 fcffa4"
)
OKABE_ITO = "56b4e9 e69f00 009e73 cc79a7 f0e442 d55e00 0072b2"
GOLDEN_ANGLE = 0.381966  # of a full turn


def colorScale(controlPoints, count=256):
    """Spread control points evenly over a scale.

    :param controlPoints: hexadecimal RGB codes, dark to bright, with blanks between.
    :param count: number of colours.
    :return: (count, 3) array, red green blue in 0..1, linear between the control points.
    """
    points = np.array([_rgb(code) for code in controlPoints.split()])
    positions = np.linspace(0, len(points) - 1, count)
    return np.stack([np.interp(positions, np.arange(len(points)), points[:, i]) for i in range(3)], axis=1)


def outlineColor(index):
    """Colour of the structure with this place in the model's list, from 0; distinct for the first few dozen.

    :return: (red, green, blue) in 0..1.
    """
    named = OKABE_ITO.split()
    if index < len(named):
        return _rgb(named[index])
    turn = index - len(named)
    return colorsys.hsv_to_rgb((0.05 + turn * GOLDEN_ANGLE) % 1.0, (0.55, 0.85)[turn % 2], 1.0)


def _rgb(code):
    return tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
