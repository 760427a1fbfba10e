//! Signals from house and grid; one file a feed. Today: the tariff that the host states.
