"""Ages at another temperature."""

from __future__ import annotations

import math

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.utils.times import seconds

_BOLTZMANN = 8.617333262e-5  # eV/K
_ZERO_CELSIUS = 273.15  # K


def equivalent_age(t: float | str, *, celsius: float, reference: float, activation_energy: float) -> float:
    r"""The age at the reference temperature after which a chip is where it is after ``t`` at another temperature.

    .. math:: t_{eq} = t\, \exp\left(\frac{E_a}{k_B} \left(\frac{1}{T_0} - \frac{1}{T}\right)\right)

    It assumes that what changes the cells is one thermally activated process (Arrhenius): temperature sets its speed
    and nothing else, and it was the same all the time since programming. Then every drift or retention effect of the
    chain may be asked at the equivalent age. Where several processes with other energies take part, or where the
    temperature changes the conductance itself, it does not hold. 1/f read noise is asked at the same age and comes out
    slightly larger, as the root of a logarithm of time.

    Args:
        t: age at ``celsius``: seconds or text such as ``"1y"``.
        celsius: temperature of the chip since programming, °C.
        reference: temperature at which the device model was measured, °C.
        activation_energy: :math:`E_a`, eV. It belongs to material and mechanism and has no default: the sources of the
            device models here give none.

    Returns:
        Seconds, to be given to `drift` or `evaluate`.

    Raises:
        TypeError: what should be a number is none.
        ValueError: a temperature not above absolute zero, an energy below zero, or an age that is no time.

    Example:
        >>> round(equivalent_age("1h", celsius=85, reference=25, activation_energy=1.0) / 3600)
        679
    """
    for name, value in (("celsius", celsius), ("reference", reference), ("activation_energy", activation_energy)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidTypeError(f"equivalent_age: {name} must be a number, got {value!r}")
        low = 0.0 if name == "activation_energy" else -_ZERO_CELSIUS
        if not (math.isfinite(value) and value >= low) or value == -_ZERO_CELSIUS:
            unit = "eV and >= 0" if name == "activation_energy" else f"°C and above {-_ZERO_CELSIUS}"
            raise InvalidValueError(f"equivalent_age: {name} must be in {unit}, got {value!r}")
    inverse = 1 / (reference + _ZERO_CELSIUS) - 1 / (celsius + _ZERO_CELSIUS)
    return seconds(t) * math.exp(activation_energy / _BOLTZMANN * inverse)
