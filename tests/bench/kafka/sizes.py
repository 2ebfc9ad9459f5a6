"""How much the benches on Kafka send."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Events and customers of each part."""

    events: int  # in the topic of the loops and of Streams
    agent_events: int  # in the agent's, which takes a millisecond for each
    requests: int  # of 100 events, to the door
    customers: int
    fold_events: int  # for the workers
    probes: int  # end to end


QUICK = Size(events=5_000, agent_events=1_000, requests=30, customers=500, fold_events=3_000, probes=10)
FULL = Size(events=200_000, agent_events=10_000, requests=1_000, customers=20_000, fold_events=100_000, probes=200)
