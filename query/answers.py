"""Values as answers hold them, under the name that this room knows them by: what topics hold too is in `schemas`."""

from schemas.answers import computed, iso, iso_us, sent

__all__ = ["computed", "iso", "iso_us", "sent"]
