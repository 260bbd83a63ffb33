"""Settings of the service, one file for each part of it."""

from service.settings.settings import PREFIX, Settings, load_settings

__all__ = ["PREFIX", "Settings", "load_settings"]
