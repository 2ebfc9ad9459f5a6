"""Values as answers contain them, under the name used in this package; `schemas` has what topics contain too."""

from schemas.answers import computed, iso, iso_us, sent

__all__ = ["computed", "iso", "iso_us", "sent"]
