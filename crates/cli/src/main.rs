//! The idlewatt binary: daemon, tray host and commands.
fn main() {}
