//! Model servers: discovery, live probe and one adapter each.
