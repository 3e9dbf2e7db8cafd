"""Growing degree days. Pure."""


def degree_days(temperature_min: float, temperature_max: float, base: float, cap: float | None = None) -> float:
    """Return the growing degree days of one day, in degree days of the unit that all temperatures have.

    GDD = max(0, (Tmin + Tmax) / 2 - Tbase), where Tmin and Tmax are first lowered to the cap if there is one: above
    it a plant grows no faster. This is method 1 of McMaster and Wilhelm, "Growing degree-days: one equation, two
    interpretations", Agricultural and Forest Meteorology 87 (1997): the mean is compared with the base. Their method 2
    would raise Tmin and Tmax to the base before, and gives more on days that cross it.
    """
    if cap is not None:
        temperature_min, temperature_max = min(temperature_min, cap), min(temperature_max, cap)
    return max(0.0, (temperature_min + temperature_max) / 2 - base)
