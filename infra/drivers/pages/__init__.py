"""The web pages: NiceGUI in its own process, calling the same functions as the API and the commands."""
