"""The pages for people: NiceGUI in a process of its own. Calls the same functions as the API and the commands."""
