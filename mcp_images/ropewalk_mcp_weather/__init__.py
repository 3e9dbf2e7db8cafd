"""What the weather servers share: Open-Meteo's API, places by name or coordinates, units, and the words for weather."""
