"""What arrived from each source, as SQL over the log. Pure."""

from datetime import datetime, time
from zoneinfo import ZoneInfo


def since_midnight(now: datetime, zone: ZoneInfo) -> tuple[datetime, str]:
    """The last midnight, and a statement giving (source, events received since then, newest receipt)."""
    midnight = datetime.combine(now.astimezone(zone).date(), time.min, zone)
    return midnight, (
        f"select source, count(*) filter (where received_at >= to_timestamp({midnight.timestamp():.0f})),"
        " max(received_at) from events group by 1"
    )
