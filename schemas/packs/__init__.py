"""Packs: ready-made definitions, one folder of YAML each. `schemas.definitions.load_pack` reads them."""
