//! The hub: an OpenAI-compatible gateway in front of nodes, with its ledger.
