//! The tokio shell of a node: wires the rooms and serves the control door on loopback.
