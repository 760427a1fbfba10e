//! How much others say to a model server on this machine, without asking the server: with all its slots taken, a request
//! that waits shows in none of its endpoints.
//!
//! Linux tells, also those who are not root; this process's own connections are left out. Elsewhere nothing is told
//! (Windows counts bytes for administrators only, macOS through no public call), nor of a server on another machine, nor of
//! what reaches a container without passing this machine's own sockets. What the bytes mean is
//! `idlewatt_core::own_use`'s.

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub use linux::Traffic;

#[cfg(not(target_os = "linux"))]
pub use rest::Traffic;

#[cfg(not(target_os = "linux"))]
mod rest {
    use std::io;

    use idlewatt_core::own_use::Conversation;

    /// Nothing is told here.
    #[derive(Debug)]
    pub enum Traffic {}

    impl Traffic {
        /// Always an error: this system does not tell.
        ///
        /// # Errors
        /// Always.
        pub fn of_port(_port: u16) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        /// Never called.
        ///
        /// # Errors
        /// Never.
        pub fn look(&mut self) -> io::Result<Vec<Conversation>> {
            match *self {}
        }
    }
}
