"""A stand-in for the API of Open-Meteo where there is no internet: its form and its refusals, with made-up weather."""
